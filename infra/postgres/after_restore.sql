-- After the database was restored to an earlier time, or a standby was promoted that lacked acknowledged writes. All nodes are
-- stopped. docs/postgresql.md, "Restored to an earlier time", says why, and what it cannot repair.

BEGIN;
-- Floors: no cancel may be granted for what an owner may have read, and delivered, since that time. Ten seconds ahead: a frontier
-- may lead by CLOCKWORK_FRONTIER_LEAD_MS (5 s at most), and a node's clock by 2 s.
-- Owners: their incarnations have ended, or are not known here; without an owner the next one takes the shard on its floor.
-- Epochs: above all that were given out since that time, and are forgotten.
UPDATE clockwork.shards SET
    floor_ms = greatest(floor_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 10000),
    owner = NULL,
    epoch = epoch + 1000;
COMMIT;
