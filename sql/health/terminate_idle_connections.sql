-- purpose: client sessions that are idle, inside a transaction or not, and whether we may end them
-- needs: PostgreSQL 14; without pg_read_all_stats it is not known what the sessions of others do
-- params: none
-- columns: pid int4, backend_start timestamptz, state text, user_name text, database_name text,
--   application text, own bool, superuser bool, may_end bool,
--   idle_seconds float8, xact_seconds float8, query text
select
    a.pid,
    a.backend_start,
    a.state,
    a.usename::text as user_name,
    a.datname::text as database_name,
    a.application_name as application,
    a.pid = pg_catalog.pg_backend_pid() as own,
    r.rolsuper as superuser,
    me.rolsuper
        or not r.rolsuper and (
            pg_catalog.pg_has_role(a.usesysid, 'USAGE')
            or pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')
        ) as may_end,
    extract(epoch from pg_catalog.clock_timestamp() - a.state_change)::float8 as idle_seconds,
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as xact_seconds,
    pg_catalog.left(a.query, 1000) as query
from pg_catalog.pg_stat_activity as a
join pg_catalog.pg_roles as r on r.oid = a.usesysid
join pg_catalog.pg_roles as me on me.rolname = current_user
where a.backend_type = 'client backend' and a.state like 'idle%'
    or a.backend_type is null and a.datid is not null
order by a.pid
