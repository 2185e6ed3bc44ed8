-- Processes and clients that were seen lately, for people; nothing is decided by them.

CREATE TABLE seen (
    process text COLLATE "C" PRIMARY KEY,
    seen_at_ms bigint NOT NULL,
    body text NOT NULL
);

CREATE TABLE clients (
    client_id text COLLATE "C" PRIMARY KEY,
    first_day int NOT NULL,
    last_day int NOT NULL
);
