-- purpose: who replicates from here, in bytes and seconds behind; the lag of a sync into the lakehouse
-- needs: PostgreSQL 14; not on a standby; without pg_read_all_stats all but the process is hidden
-- params: none
-- columns: pid int4, user_name text, application_name text, client_addr text, state text, sync_state text,
--   sent_lsn text, write_lsn text, flush_lsn text, replay_lsn text, sent_lag_bytes int8,
--   replay_lag_bytes int8, write_lag_seconds float8, flush_lag_seconds float8, replay_lag_seconds float8
select
    r.pid,
    r.usename::text as user_name,
    r.application_name,
    pg_catalog.host(r.client_addr) as client_addr,
    r.state,
    r.sync_state,
    r.sent_lsn::text as sent_lsn,
    r.write_lsn::text as write_lsn,
    r.flush_lsn::text as flush_lsn,
    r.replay_lsn::text as replay_lsn,
    pg_catalog.pg_wal_lsn_diff(here.lsn, r.sent_lsn)::int8 as sent_lag_bytes,
    pg_catalog.pg_wal_lsn_diff(here.lsn, r.replay_lsn)::int8 as replay_lag_bytes,
    extract(epoch from r.write_lag)::float8 as write_lag_seconds,
    extract(epoch from r.flush_lag)::float8 as flush_lag_seconds,
    extract(epoch from r.replay_lag)::float8 as replay_lag_seconds
from pg_catalog.pg_stat_replication as r
cross join (
    select case
        when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_receive_lsn()
        else pg_catalog.pg_current_wal_lsn()
    end as lsn
) as here
order by r.pid
