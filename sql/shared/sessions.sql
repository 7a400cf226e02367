-- purpose: every server process with how long it has been what it is, and whom it waits for
-- needs: PostgreSQL 14; without pg_read_all_stats the state of other users' sessions is null
-- params: none
-- columns: pid int4, backend_start timestamptz, backend_type text, own bool, state text, user_name text,
--   database_name text, application text, client text, age_seconds float8, state_seconds float8,
--   xact_seconds float8, holds_xmin bool, wait_event text, waiting_for text, wait_seconds float8,
--   blocked_by int4[], query text
with waiting as (
    select
        l.pid,
        min(l.waitstart) as since,
        min(l.mode || ' on ' || case
            when l.relation is not null and d.oid = l.database then l.relation::regclass::text
            else l.locktype
        end) as waiting_for
    from pg_catalog.pg_locks as l
    left join pg_catalog.pg_database as d on d.datname = pg_catalog.current_database()
    where not l.granted
    group by l.pid
)
select
    a.pid,
    a.backend_start,
    -- Hidden with the rest; who has a user and a database is most likely a client.
    coalesce(
        a.backend_type,
        case when a.usesysid is not null and a.datid is not null then 'client backend' else 'hidden' end
    ) as backend_type,
    a.pid = pg_catalog.pg_backend_pid() as own,
    a.state,
    a.usename::text as user_name,
    a.datname::text as database_name,
    a.application_name as application,
    coalesce(pg_catalog.host(a.client_addr), 'local') as client,
    extract(epoch from pg_catalog.clock_timestamp() - a.backend_start)::float8 as age_seconds,
    extract(epoch from pg_catalog.clock_timestamp() - a.state_change)::float8 as state_seconds,
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as xact_seconds,
    a.backend_xmin is not null or a.backend_xid is not null as holds_xmin,
    a.wait_event,
    w.waiting_for,
    extract(epoch from pg_catalog.clock_timestamp() - w.since)::float8 as wait_seconds,
    case when w.pid is not null then pg_catalog.pg_blocking_pids(a.pid) else '{}' end as blocked_by,
    pg_catalog.left(a.query, 1000) as query
from pg_catalog.pg_stat_activity as a
left join waiting as w on w.pid = a.pid
order by a.pid
