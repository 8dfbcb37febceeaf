-- Every statement of the catalog. `-- name: NAME` begins one; code calls it by that name.

-- name: insert_run
INSERT INTO runs (id, verb, stack, plan, backup, vault, state, partial, started_at, ended_at,
                  error_code, error_text, figures, process, holdfast)
VALUES (:id, :verb, :stack, :plan, :backup, :vault, :state, :partial, :started_at, :ended_at,
        :error_code, :error_text, :figures, :process, :holdfast)
ON CONFLICT (id) DO NOTHING;

-- name: update_run
UPDATE runs
SET backup = :backup, vault = :vault, state = :state, partial = :partial, ended_at = :ended_at,
    error_code = :error_code, error_text = :error_text, figures = :figures
WHERE id = :id;

-- name: run
SELECT * FROM runs WHERE id = :id;

-- name: runs_like
SELECT * FROM runs WHERE substr(id, 1, length(:prefix)) = :prefix ORDER BY number LIMIT 2;

-- name: runs
SELECT * FROM runs
WHERE (:stack IS NULL OR stack = :stack)
  AND (:verb IS NULL OR verb = :verb)
  AND (:state IS NULL OR state = :state)
ORDER BY number DESC
LIMIT :limit;

-- name: open_runs
SELECT * FROM runs WHERE state IN ('pending', 'in_progress') ORDER BY number;

-- name: backup_is_known
SELECT 1 FROM runs WHERE backup = :backup AND vault = :vault AND verb = 'backup' LIMIT 1;

-- name: put_step
INSERT INTO steps (run, number, step, subject, state, started_at, ended_at, seconds, detail)
VALUES (:run, :number, :step, :subject, :state, :started_at, :ended_at, :seconds, :detail)
ON CONFLICT (run, number) DO UPDATE
SET state = excluded.state, ended_at = excluded.ended_at, seconds = excluded.seconds,
    detail = excluded.detail;

-- name: steps
SELECT * FROM steps WHERE run = :run ORDER BY number;

-- name: end_open_steps
UPDATE steps SET state = :state, ended_at = :ended_at WHERE run = :run AND state = 'in_progress';

-- name: put_backup
INSERT INTO backups (vault, id, stack, sequence, manifest)
VALUES (:vault, :id, :stack, :sequence, :manifest)
ON CONFLICT (vault, id) DO UPDATE
SET stack = excluded.stack, sequence = excluded.sequence, manifest = excluded.manifest;

-- name: count_backups
SELECT count(*) AS count FROM backups WHERE vault = :vault AND stack = :stack;

-- name: forget_backup
DELETE FROM backups WHERE vault = :vault AND id = :id;

-- name: forget_vault
DELETE FROM backups WHERE vault = :vault;

-- name: backups
SELECT vault, id, manifest FROM backups
WHERE (:vault IS NULL OR vault = :vault)
  AND (:stack IS NULL OR stack = :stack);

-- name: insert_audit
INSERT INTO audit (number, at, user, host, verb, subject, outcome, details, previous, sha256)
VALUES (:number, :at, :user, :host, :verb, :subject, :outcome, :details, :previous, :sha256);

-- name: last_audit
SELECT * FROM audit ORDER BY number DESC LIMIT 1;

-- name: audit
SELECT * FROM audit WHERE number > :after ORDER BY number LIMIT :limit;

-- name: newest_audit
SELECT * FROM (SELECT * FROM audit ORDER BY number DESC LIMIT :limit) ORDER BY number;
