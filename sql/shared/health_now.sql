-- purpose: gauges of this moment in one row: sessions, waits, ages, dead rows, replay
-- needs: PostgreSQL 14; without pg_read_all_stats the sessions of other users are hidden
-- params: $1 least_dead_rows int8
-- columns: sessions int8, hidden_sessions int8, active_sessions int8, idle_in_transaction int8,
--   longest_idle_in_transaction float8, longest_transaction float8, longest_query float8,
--   usable_connections int8, waiting_sessions int8, longest_wait float8, txid_age int8,
--   txid_database text, multixact_age int8, dead_ratio float8, dead_table text, in_recovery bool,
--   replay_lag float8
select
    a.*,
    pg_catalog.current_setting('max_connections')::int8
        - pg_catalog.current_setting('superuser_reserved_connections')::int8
        - coalesce(pg_catalog.current_setting('reserved_connections', true)::int8, 0)
        as usable_connections,
    l.waiting_sessions,
    l.longest_wait,
    d.txid_age,
    d.txid_database,
    d.multixact_age,
    t.dead_ratio,
    t.dead_table,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    case
        when not pg_catalog.pg_is_in_recovery() then null
        when pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() then 0
        else extract(
            epoch from pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()
        )::float8
    end as replay_lag
from (
    select
        pg_catalog.count(*) as sessions,
        pg_catalog.count(*) filter (where s.state is null) as hidden_sessions,
        pg_catalog.count(*) filter (where s.state = 'active' and not s.own) as active_sessions,
        pg_catalog.count(*) filter (where s.state like 'idle in transaction%') as idle_in_transaction,
        coalesce(
            pg_catalog.max(s.state_age) filter (where s.state like 'idle in transaction%'), 0
        ) as longest_idle_in_transaction,
        coalesce(pg_catalog.max(s.xact_age) filter (where not s.own), 0) as longest_transaction,
        coalesce(
            pg_catalog.max(s.query_age) filter (where s.state = 'active' and not s.own), 0
        ) as longest_query
    from (
        select
            p.state,
            p.pid = pg_catalog.pg_backend_pid() as own,
            extract(epoch from pg_catalog.clock_timestamp() - p.state_change)::float8 as state_age,
            extract(epoch from pg_catalog.clock_timestamp() - p.xact_start)::float8 as xact_age,
            extract(epoch from pg_catalog.clock_timestamp() - p.query_start)::float8 as query_age
        from pg_catalog.pg_stat_activity as p
        where coalesce(p.backend_type, 'client backend') = 'client backend'
            and p.usesysid is not null
            and p.datid is not null
    ) as s
) as a
cross join (
    select
        pg_catalog.count(distinct w.pid) as waiting_sessions,
        coalesce(
            extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.min(w.waitstart)), 0
        )::float8 as longest_wait
    from pg_catalog.pg_locks as w
    where not w.granted
) as l
cross join (
    select
        pg_catalog.max(pg_catalog.age(b.datfrozenxid))::int8 as txid_age,
        (
            pg_catalog.array_agg(b.datname::text order by pg_catalog.age(b.datfrozenxid) desc)
        )[1] as txid_database,
        pg_catalog.max(pg_catalog.mxid_age(b.datminmxid))::int8 as multixact_age
    from pg_catalog.pg_database as b
) as d
left join lateral (
    select
        u.n_dead_tup::float8 / (u.n_live_tup + u.n_dead_tup) as dead_ratio,
        pg_catalog.format('%I.%I', u.schemaname, u.relname) as dead_table
    from pg_catalog.pg_stat_user_tables as u
    where u.n_dead_tup >= greatest($1::int8, 1)
    order by 1 desc, 2
    limit 1
) as t on true
