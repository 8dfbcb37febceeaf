"""The text of the file that `holdfast init` writes."""

from __future__ import annotations

FOUND_COMPONENTS = """\
# The stores that were found, each under a name that you may change. Check that none is missing.
components:
"""

EXAMPLE_COMPONENTS = """\
# The stores of the application, each under a name of your choice. None was found here: take away
# the `#` in front of the lines that fit, and correct their paths.
# components:
#   database:
#     source: sqlite               # an SQLite database
#     path: data/app.db
#   memory:
#     source: chroma               # a Chroma vector store, by its folder
#     path: data/chroma
#   knowledge:
#     source: postgres             # a database of a PostgreSQL server
#     url: postgresql://me@localhost:5432/knowledge
#     password: "${env:POSTGRES_PASSWORD}"
#   cache:
#     source: redis                # a Redis or Valkey server, all its databases
#     url: redis://localhost:6379
#   vectors:
#     source: qdrant               # a Qdrant server
#     url: http://localhost:6333
#   attachments:
#     source: objects              # a bucket of an S3 server
#     url: s3://attachments
#     endpoint: http://localhost:9000
#     access_key: "${env:S3_ACCESS_KEY}"
#     secret_key: "${env:S3_SECRET_KEY}"
#   uploads:
#     source: files                # any folder
#     path: data/uploads
#     exclude: ["*.tmp"]           # patterns as in .gitignore
"""

ENV_FILE = """
# Where "${{env:NAME}}" finds what the environment does not have. Whoever may read it knows the
# passwords: give it mode 0600.
env_file: {files}
"""

FILE = """\
# What Holdfast backs up, where to, and when.
# Relative paths start from the folder of this file. `holdfast config validate` checks the file.
# Keep passwords out of it: write "${{env:NAME}}", or "${{file:/run/secrets/name}}", in their place.

# The name of the application; every backup carries it.
stack: {stack}

# The folder for Holdfast's own records: past runs, and what to put right after a crash.
state: .holdfast
{env_file}
{components}
# Where backups rest. A folder on another disk survives the loss of this one.
vaults:
  local:
    kind: plain                    # plain files: readable without Holdfast
    url: {vault}

# When to back up, and what to keep. `holdfast backup nightly` runs this plan now. This version has
# no scheduler: let cron or a systemd timer run that command at the time that `schedule` names.
plans:
  nightly:
    schedule: "0 2 * * *"          # minute hour day month weekday: every night at two
    timezone: {timezone}
    components: all                # or a list of names
    vaults: all                    # or a list of names
    keep:                          # the newest good and the newest verified one always stay
      last: 3                      # the three newest
      daily: 30d                   # one for each of the last 30 days
      weekly: 12w                  # one for each of the last 12 weeks
      monthly: 12m                 # one for each of the last 12 months
    verify: checksums              # read every byte again once the backup is there
    # rpo: 24h                     # warn when the newest good backup is older than this

# Assertions on the data, asked of every restore before it goes live and by `holdfast check`.
# checks:
#   - name: every order has its customer     # each row that the query returns is a violation
#     component: database
#     sql: SELECT id FROM orders WHERE customer_id NOT IN (SELECT id FROM customers)

# The application's own services: stopped for a restore, started after it, then asked how they are.
# services:
#   stop: [docker, compose, stop, api]
#   start: [docker, compose, start, api]
#   health: ["http://localhost:8000/health"]

# Commands to run around backups and restores.
# hooks:
#   before_backup: [/usr/local/bin/pause-imports]
#   after_backup: [/usr/local/bin/resume-imports]
#   on_error: [/usr/local/bin/tell-somebody]
"""
