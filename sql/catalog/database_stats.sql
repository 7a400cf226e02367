-- purpose: the counters of every database that may be connected to, with the time that they count from
-- needs: PostgreSQL 14
-- params: none
-- columns: database_name text, numbackends int4, xact_commit int8, xact_rollback int8, blks_read int8,
--   blks_hit int8, deadlocks int8, temp_files int8, temp_bytes int8, stats_reset timestamptz
select
    d.datname::text as database_name,
    s.numbackends,
    s.xact_commit,
    s.xact_rollback,
    s.blks_read,
    s.blks_hit,
    s.deadlocks,
    s.temp_files,
    s.temp_bytes,
    s.stats_reset
from pg_catalog.pg_stat_database as s
join pg_catalog.pg_database as d on d.oid = s.datid
where d.datallowconn
order by 1
