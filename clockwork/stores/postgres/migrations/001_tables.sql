-- Run in a transaction whose search_path is the cluster's schema. Never edited once it is released: each file's digest is
-- stored, and a node refuses a schema that another text has made.
--
-- Keys and headers are bytea: they may hold U+0000, which text refuses. Positions are exact decimals, spelled as everywhere.

CREATE TABLE cluster (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    format int NOT NULL,
    shards int NOT NULL
);

-- One row a page: each is updated in place again and again (HOT), and no two shards share a page's lock.
CREATE TABLE shards (
    shard int PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text COLLATE "C",
    floor_ms bigint NOT NULL,
    format int NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE nodes (
    incarnation text COLLATE "C" PRIMARY KEY,
    frontier_ms bigint NOT NULL,
    fenced_at_ms bigint,
    slots int NOT NULL,
    hints jsonb NOT NULL,
    node text NOT NULL,
    format int NOT NULL
) WITH (fillfactor = 10);

-- A table of its own beside the rows: the end of a schedule must rewrite neither its payload nor an index entry among a week
-- of ended ones.
CREATE TABLE pointers (
    client_id text COLLATE "C" NOT NULL,
    schedule_key bytea NOT NULL,
    shard int NOT NULL,
    position numeric(38, 24) NOT NULL CHECK (position > 0 AND position < 1e14),
    version bigint NOT NULL,
    digest text NOT NULL,
    expires_at_s bigint NOT NULL,
    rearmed boolean NOT NULL,
    discarded_at_ms bigint,
    format int NOT NULL,
    PRIMARY KEY (client_id, schedule_key)
);
CREATE INDEX pointers_listed ON pointers (client_id, position);

-- Vacuumed by number, not by share: a page of a shard is read behind the dead rows of what was delivered.
CREATE TABLE rows (
    shard int NOT NULL,
    position numeric(38, 24) NOT NULL CHECK (position > 0 AND position < 1e14),
    hold text,
    retry_at_ms bigint,
    retry_epoch bigint,
    retry_attempts int,
    client_id text COLLATE "C" NOT NULL,
    schedule_key bytea NOT NULL,
    ordering_key bytea NOT NULL,
    topic text COLLATE "C" NOT NULL,
    guarantee text NOT NULL,
    task_data bytea NOT NULL,
    data_form text NOT NULL,
    headers bytea,
    traceparent text,
    deadline_ms bigint,
    on_late text,
    retry_policy bytea,
    created_at_ms bigint NOT NULL,
    version bigint NOT NULL,
    delivery_id text NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (shard, position)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0,
    autovacuum_analyze_scale_factor = 0,
    autovacuum_analyze_threshold = 50000
);

-- The content as in rows, copied inside the server; all of it null: an outcome without content.
CREATE TABLE outcomes (
    client_id text COLLATE "C" NOT NULL,
    schedule_key bytea NOT NULL,
    position numeric(38, 24) NOT NULL CHECK (position > 0 AND position < 1e14),
    state text NOT NULL,
    at_ms bigint NOT NULL,
    expires_at_s bigint NOT NULL,
    kafka_partition int,
    kafka_offset bigint,
    placed_at_ms bigint,
    reason text,
    attempts int,
    moved_to numeric(38, 24),
    ordering_key bytea,
    topic text COLLATE "C",
    guarantee text,
    task_data bytea,
    data_form text,
    headers bytea,
    traceparent text,
    deadline_ms bigint,
    on_late text,
    retry_policy bytea,
    created_at_ms bigint,
    version bigint,
    delivery_id text,
    format int NOT NULL,
    PRIMARY KEY (client_id, schedule_key, position)
);
-- No BRIN: a range keeps the lowest date that it ever had, so once pages are used again, each search would read them all.
CREATE INDEX outcomes_expiry ON outcomes (expires_at_s);

CREATE TABLE command_notes (
    client_id text COLLATE "C" NOT NULL,
    schedule_key bytea NOT NULL,
    places text NOT NULL,
    "by" text NOT NULL,
    expires_at_s bigint NOT NULL,
    format int NOT NULL,
    PRIMARY KEY (client_id, schedule_key)
);
CREATE INDEX command_notes_expiry ON command_notes (expires_at_s);

CREATE TABLE pauses (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL,
    body bytea NOT NULL,
    format int NOT NULL
);

-- Called by the last SELECT of a statement whose conditions do not hold: undoes all of it.
CREATE FUNCTION refuse() RETURNS bigint LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = 'CW001'; END $$;

-- For people.
CREATE VIEW pending AS
SELECT
    shard,
    position,
    to_timestamp(trunc(position) / 1000) AS due,
    client_id,
    encode(schedule_key, 'escape') AS schedule_key,
    encode(ordering_key, 'escape') AS ordering_key,
    topic,
    guarantee,
    octet_length(task_data) AS task_data_bytes,
    hold,
    retry_at_ms,
    retry_attempts,
    to_timestamp(created_at_ms / 1000.0) AS created,
    delivery_id
FROM rows;
