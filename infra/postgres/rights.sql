-- The least rights in a database, for two roles: clockwork_init runs `python -m clockwork init`, clockwork_node is every node.
-- Run it as an administrator before the first `init`, and its second part again after an `init` that added tables; the check at a
-- node's start names what is missing. Other names: replace them here, and set CLOCKWORK_POSTGRES_SCHEMA. How the roles prove who
-- they are (a password, a certificate) is set by you. A test makes the tables and runs a store with these rights and no others.

-- 1. Before the first `init`.
CREATE ROLE clockwork_init LOGIN;
CREATE ROLE clockwork_node LOGIN;
CREATE SCHEMA IF NOT EXISTS clockwork AUTHORIZATION clockwork_init;
GRANT USAGE ON SCHEMA clockwork TO clockwork_node;
-- To see the oldest snapshot of all sessions and the replicas: for an alert and for warnings, which are left out without it.
GRANT pg_read_all_stats TO clockwork_node, clockwork_init;

-- 2. After `init`.
-- Format and number of shards, and the migrations: only read.
GRANT SELECT ON clockwork.cluster, clockwork.migrations TO clockwork_node;
-- Owner, epoch and floor of each shard: made once, by `init`. No role may delete one.
GRANT SELECT, UPDATE ON clockwork.shards TO clockwork_node;
-- Incarnations: start, frontier, fence; those that own nothing any more are deleted.
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.nodes TO clockwork_node;
-- Schedules: create, hold, end; retention deletes outcomes, pointers and notes (and locks them, which takes UPDATE).
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.rows TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.pointers TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.outcomes TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.command_notes TO clockwork_node;
-- Recurring jobs: states and definitions go with a job; retention deletes the rest.
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.jobs TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.job_definitions TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.job_log TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.job_completions TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.job_requests TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.job_notes TO clockwork_node;
-- Named calendars, and the jobs that name them.
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.calendars TO clockwork_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.calendar_jobs TO clockwork_node;
-- Paused clients and topics.
GRANT SELECT, INSERT, UPDATE ON clockwork.pauses TO clockwork_node;
-- Processes and clients that were seen lately.
GRANT SELECT, INSERT, UPDATE, DELETE ON clockwork.seen TO clockwork_node;
GRANT SELECT, INSERT, UPDATE ON clockwork.clients TO clockwork_node;
-- A statement whose conditions do not hold undoes itself by it.
GRANT EXECUTE ON FUNCTION clockwork.refuse() TO clockwork_node;
