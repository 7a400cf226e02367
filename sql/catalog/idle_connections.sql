-- purpose: client sessions that sit idle for too long, those inside a transaction first: only they harm others
-- needs: PostgreSQL 14; without pg_read_all_stats the state of other users' sessions is hidden, and they are left out
-- params: $1 max_idle_seconds float8
-- columns: pid int4, user_name text, application_name text, state text, idle_seconds float8,
--   transaction_seconds float8, holds_xmin bool, query text
select
    a.pid,
    a.usename::text as user_name,
    a.application_name,
    a.state,
    extract(epoch from pg_catalog.clock_timestamp() - a.state_change)::float8 as idle_seconds,
    extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as transaction_seconds,
    a.backend_xmin is not null or a.backend_xid is not null as holds_xmin,
    pg_catalog.left(a.query, 1000) as query
from pg_catalog.pg_stat_activity as a
where a.backend_type = 'client backend'
    and a.pid <> pg_catalog.pg_backend_pid()
    and a.state like 'idle%'
    and extract(epoch from pg_catalog.clock_timestamp() - a.state_change)::float8 > $1
order by a.state = 'idle', 5 desc
