-- purpose: checkpoints, background writing and WAL, as counters
-- needs: PostgreSQL 14 to 16
-- params: none
-- columns: num_timed int8, num_requested int8, write_time float8, sync_time float8, buffers_written int8,
--   buffers_clean int8, maxwritten_clean int8, buffers_alloc int8, stats_reset timestamptz,
--   wal_records int8, wal_fpi int8, wal_bytes int8, wal_buffers_full int8, wal_stats_reset timestamptz
select
    b.checkpoints_timed as num_timed,
    b.checkpoints_req as num_requested,
    b.checkpoint_write_time as write_time,
    b.checkpoint_sync_time as sync_time,
    b.buffers_checkpoint as buffers_written,
    b.buffers_clean,
    b.maxwritten_clean,
    b.buffers_alloc,
    b.stats_reset,
    w.wal_records,
    w.wal_fpi,
    w.wal_bytes::int8 as wal_bytes,
    w.wal_buffers_full,
    w.stats_reset as wal_stats_reset
from pg_catalog.pg_stat_bgwriter as b
cross join pg_catalog.pg_stat_wal as w
