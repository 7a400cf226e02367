-- purpose: how much WAL was made, and what writing it cost
-- needs: PostgreSQL 14 to 17; times are zero without track_wal_io_timing
-- params: none
-- columns: wal_records int8, wal_fpi int8, wal_bytes int8, wal_buffers_full int8, wal_write int8,
--   wal_sync int8, wal_write_time float8, wal_sync_time float8, stats_reset timestamptz
select
    w.wal_records,
    w.wal_fpi,
    w.wal_bytes::int8 as wal_bytes,
    w.wal_buffers_full,
    w.wal_write,
    w.wal_sync,
    w.wal_write_time,
    w.wal_sync_time,
    w.stats_reset
from pg_catalog.pg_stat_wal as w
