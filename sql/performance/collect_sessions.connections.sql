-- purpose: how many client sessions are in which state, by user, application and what they wait for
-- needs: PostgreSQL 14; without pg_read_all_stats the state of other users' sessions is null
-- params: none
-- columns: at timestamptz, state text, user_name text, application_name text, wait_event_type text,
--   connections int8, oldest_seconds float8, max_connections int8
select
    pg_catalog.clock_timestamp() as at,
    a.state,
    a.usename::text as user_name,
    -- What we call ourselves names the run.
    case when a.application_name like 'lakeops:%' then 'lakeops' else a.application_name end
        as application_name,
    a.wait_event_type,
    pg_catalog.count(*) as connections,
    extract(
        epoch from pg_catalog.clock_timestamp() - min(a.state_change)
    )::float8 as oldest_seconds,
    min(
        pg_catalog.current_setting('max_connections')::int8
            - pg_catalog.current_setting('superuser_reserved_connections')::int8
            - coalesce(pg_catalog.current_setting('reserved_connections', true)::int8, 0)
    ) as max_connections
from pg_catalog.pg_stat_activity as a
where a.backend_type = 'client backend'
group by 2, 3, 4, 5
order by 6 desc, 2, 3, 4, 5
