-- Runs and their steps, the audit trail, and a copy of the vaults' manifests.
-- Times are texts: ISO 8601, UTC, microseconds.

CREATE TABLE runs (
    number      INTEGER PRIMARY KEY,     -- grows with every run: orders them even if a clock jumps
    id          TEXT NOT NULL UNIQUE,
    verb        TEXT NOT NULL,
    stack       TEXT NOT NULL,
    plan        TEXT NOT NULL,
    backup      TEXT NOT NULL,
    vault       TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN
        ('pending', 'in_progress', 'completed', 'failed', 'rolled_back', 'cancelled')),
    partial     INTEGER NOT NULL,        -- 1: completed, but not whole
    started_at  TEXT NOT NULL,
    ended_at    TEXT,
    error_code  TEXT NOT NULL,
    error_text  TEXT NOT NULL,
    figures     TEXT NOT NULL,           -- JSON
    process     TEXT NOT NULL,           -- JSON: host, boot, space, pid, started
    holdfast    TEXT NOT NULL            -- the version that ran
) STRICT;

CREATE INDEX runs_by_stack ON runs (stack, number);
CREATE INDEX open_runs ON runs (number) WHERE state IN ('pending', 'in_progress');

CREATE TABLE steps (
    run         TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    step        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    state       TEXT NOT NULL,
    started_at  TEXT,
    ended_at    TEXT,
    seconds     REAL NOT NULL,
    detail      TEXT NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    number      INTEGER PRIMARY KEY,     -- 1, 2, 3 … without a gap
    at          TEXT NOT NULL,
    user        TEXT NOT NULL,
    host        TEXT NOT NULL,
    verb        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    details     TEXT NOT NULL,           -- JSON
    previous    TEXT NOT NULL,           -- sha256 of the entry before; 64 zeros for the first
    sha256      TEXT NOT NULL            -- over all the other fields
) STRICT;

CREATE TABLE backups (
    vault       TEXT NOT NULL,
    id          TEXT NOT NULL,
    stack       TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    manifest    BLOB NOT NULL,           -- as the vault has it
    PRIMARY KEY (vault, id)
) STRICT;
