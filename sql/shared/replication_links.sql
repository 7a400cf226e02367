-- purpose: replication slots with the WAL that they keep, and standbys with their lag
-- needs: PostgreSQL 14; inactive_since exists from 17 on; without pg_read_all_stats lags are null
-- params: none
-- columns: kind text, name text, active bool, state text, retained_bytes int8, lag_seconds float8,
--   inactive_seconds float8
with here as (
    select case
        when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
        else pg_catalog.pg_current_wal_lsn()
    end as lsn
)
select
    'slot' as kind,
    s.slot_name::text as name,
    s.active,
    s.wal_status as state,
    pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn)::int8 as retained_bytes,
    null::float8 as lag_seconds,
    extract(
        epoch from pg_catalog.clock_timestamp()
            - (pg_catalog.to_jsonb(s) ->> 'inactive_since')::timestamptz
    )::float8 as inactive_seconds
from pg_catalog.pg_replication_slots as s
cross join here
union all
select
    'standby',
    coalesce(nullif(r.application_name, ''), pg_catalog.host(r.client_addr), r.pid::text),
    true,
    r.state,
    pg_catalog.pg_wal_lsn_diff(here.lsn, r.replay_lsn)::int8,
    -- A standby that has replayed everything reports no lag after a while.
    coalesce(
        extract(epoch from r.replay_lag)::float8,
        case when r.replay_lsn >= here.lsn then 0 end
    ),
    null
from pg_catalog.pg_stat_replication as r
cross join here
order by 1, 2
