-- purpose: how much WAL was made, and what writing it cost
-- needs: PostgreSQL 18 or later, where writes are counted with other I/O; times are zero without
--   track_wal_io_timing
-- params: none
-- columns: wal_records int8, wal_fpi int8, wal_bytes int8, wal_buffers_full int8, wal_write int8,
--   wal_sync int8, wal_write_time float8, wal_sync_time float8, stats_reset timestamptz
select
    w.wal_records,
    w.wal_fpi,
    w.wal_bytes::int8 as wal_bytes,
    w.wal_buffers_full,
    i.writes as wal_write,
    i.fsyncs as wal_sync,
    i.write_time as wal_write_time,
    i.fsync_time as wal_sync_time,
    w.stats_reset
from pg_catalog.pg_stat_wal as w
cross join (
    select
        pg_catalog.sum(s.writes)::int8 as writes,
        pg_catalog.sum(s.fsyncs)::int8 as fsyncs,
        pg_catalog.sum(s.write_time) as write_time,
        pg_catalog.sum(s.fsync_time) as fsync_time
    from pg_catalog.pg_stat_io as s
    where s.object = 'wal'
) as i
