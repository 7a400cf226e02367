-- purpose: reads, hits and writes by who did them, on what, and in which way: bulk reads and VACUUM distort a ratio
-- needs: PostgreSQL 18 or later; times are zero without track_io_timing
-- params: none
-- columns: backend_type text, object text, context text, reads int8, read_bytes int8, hits int8, writes int8,
--   fsyncs int8, read_time_ms float8, write_time_ms float8, stats_reset timestamptz
select
    s.backend_type,
    s.object,
    s.context,
    pg_catalog.sum(s.reads)::int8 as reads,
    pg_catalog.sum(s.read_bytes)::int8 as read_bytes,
    pg_catalog.sum(s.hits)::int8 as hits,
    pg_catalog.sum(s.writes)::int8 as writes,
    pg_catalog.sum(s.fsyncs)::int8 as fsyncs,
    pg_catalog.sum(s.read_time) as read_time_ms,
    pg_catalog.sum(s.write_time) as write_time_ms,
    min(s.stats_reset) as stats_reset
from pg_catalog.pg_stat_io as s
group by 1, 2, 3
having coalesce(pg_catalog.sum(s.reads), 0) + coalesce(pg_catalog.sum(s.writes), 0)
    + coalesce(pg_catalog.sum(s.hits), 0) > 0
order by 1, 2, 3
