-- purpose: since when the counters of this database count, what it weighs, and who is connected
-- needs: PostgreSQL 14
-- params: none
-- columns: at timestamptz, stats_reset timestamptz, postmaster_start timestamptz, in_recovery bool,
--   database_size_bytes int8, connections int8, max_connections int8
select
    pg_catalog.clock_timestamp() as at,
    d.stats_reset,
    pg_catalog.pg_postmaster_start_time() as postmaster_start,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    pg_catalog.pg_database_size(d.datid) as database_size_bytes,
    (
        select pg_catalog.sum(o.numbackends)::int8
        from pg_catalog.pg_stat_database as o
        where o.datid <> 0
    ) as connections,
    pg_catalog.current_setting('max_connections')::int8 as max_connections
from pg_catalog.pg_stat_database as d
where d.datname = pg_catalog.current_database()
