-- Recurring jobs. Their state, definitions, log and requests are written as a whole (stores/job_forms.py), as JSON in UTF-8: it
-- may hold U+0000, which json and text refuse. The columns are what keys, conditions and indexes are about.

-- The occurrence that a row of a job is; null: a one-shot schedule.
ALTER TABLE rows ADD COLUMN job bytea;

-- One row a job, updated in place by each run (HOT): no index has a column that changes.
CREATE TABLE jobs (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    spread bigint NOT NULL,
    rev bigint NOT NULL,
    body bytea NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id)
) WITH (fillfactor = 50);
-- The audit's segments: ranges of a hash of the name.
CREATE INDEX jobs_spread ON jobs (spread, client_id, job_id);

CREATE TABLE job_definitions (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    version bigint NOT NULL,
    created_at_ms bigint NOT NULL,
    body bytea NOT NULL,
    task_data bytea NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id, version)
);

-- Runs that ended, and skipped stretches.
CREATE TABLE job_log (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    position numeric(38, 24) NOT NULL CHECK (position > 0 AND position < 1e14),
    kind text NOT NULL,
    body bytea NOT NULL,
    expires_at_s bigint NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id, position)
);
CREATE INDEX job_log_expiry ON job_log (expires_at_s);

-- Beside the log: an owner that was paused may write an entry of that again.
CREATE TABLE job_completions (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    position numeric(38, 24) NOT NULL CHECK (position > 0 AND position < 1e14),
    body bytea NOT NULL,
    expires_at_s bigint NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id, position)
);
CREATE INDEX job_completions_expiry ON job_completions (expires_at_s);

CREATE TABLE job_requests (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    request_id bytea NOT NULL,
    body bytea NOT NULL,
    expires_at_s bigint NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id, request_id)
);
CREATE INDEX job_requests_expiry ON job_requests (expires_at_s);

CREATE TABLE job_notes (
    client_id text COLLATE "C" NOT NULL,
    job_id bytea NOT NULL,
    places text NOT NULL,
    "by" text NOT NULL,
    expires_at_s bigint NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, job_id)
);
CREATE INDEX job_notes_expiry ON job_notes (expires_at_s);

-- For people.
CREATE VIEW job_states AS
SELECT
    client_id,
    encode(job_id, 'escape') AS job_id,
    rev,
    convert_from(body, 'UTF8')::json AS state
FROM jobs;
