-- purpose: checkpoints, background writing and WAL, as counters
-- needs: PostgreSQL 17 only
-- params: none
-- columns: num_timed int8, num_requested int8, restartpoints_timed int8, restartpoints_req int8,
--   restartpoints_done int8, write_time float8, sync_time float8, buffers_written int8,
--   buffers_clean int8, maxwritten_clean int8, buffers_alloc int8, stats_reset timestamptz,
--   wal_records int8, wal_fpi int8, wal_bytes int8, wal_buffers_full int8, wal_stats_reset timestamptz
select
    c.num_timed,
    c.num_requested,
    c.restartpoints_timed,
    c.restartpoints_req,
    c.restartpoints_done,
    c.write_time,
    c.sync_time,
    c.buffers_written,
    b.buffers_clean,
    b.maxwritten_clean,
    b.buffers_alloc,
    c.stats_reset,
    w.wal_records,
    w.wal_fpi,
    w.wal_bytes::int8 as wal_bytes,
    w.wal_buffers_full,
    w.stats_reset as wal_stats_reset
from pg_catalog.pg_stat_checkpointer as c
cross join pg_catalog.pg_stat_bgwriter as b
cross join pg_catalog.pg_stat_wal as w
