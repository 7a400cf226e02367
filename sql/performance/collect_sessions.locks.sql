-- purpose: who waits for a lock, since when, and for whom
-- needs: PostgreSQL 14; without pg_read_all_stats what other users do is null
-- params: none
-- columns: at timestamptz, pid int4, blocked_by int4[], wait_seconds float8, transaction_seconds float8,
--   lock_type text, lock_mode text, relation text, user_name text, application_name text, state text,
--   wait_event_type text, wait_event text, queryid int8, query text
select
    pg_catalog.clock_timestamp() as at,
    a.pid,
    pg_catalog.pg_blocking_pids(a.pid) as blocked_by,
    extract(epoch from pg_catalog.clock_timestamp() - l.waitstart)::float8 as wait_seconds,
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as transaction_seconds,
    l.locktype as lock_type,
    l.mode as lock_mode,
    case
        when l.database = a.datid and a.datname = pg_catalog.current_database()
            then pg_catalog.format('%I.%I', n.nspname, c.relname)
    end as relation,
    a.usename::text as user_name,
    a.application_name,
    a.state,
    a.wait_event_type,
    a.wait_event,
    a.query_id as queryid,
    pg_catalog.left(a.query, 1000) as query
from pg_catalog.pg_stat_activity as a
join lateral (
    select w.locktype, w.mode, w.relation, w.database, w.waitstart
    from pg_catalog.pg_locks as w
    where w.pid = a.pid and not w.granted
    order by w.waitstart
    limit 1
) as l on true
left join pg_catalog.pg_class as c on c.oid = l.relation
left join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
order by a.pid
