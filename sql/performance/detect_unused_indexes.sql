-- purpose: how far the counters of this database go back, and who else may use its indexes
-- needs: PostgreSQL 14; without pg_monitor standbys are counted all the same
-- params: none
-- columns: reset_at timestamptz, transactions int8, in_recovery bool, standbys int8, counts bool
select
    d.stats_reset as reset_at,
    d.xact_commit + d.xact_rollback as transactions,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    (
        select pg_catalog.count(*)
        from pg_catalog.pg_stat_get_wal_senders() as s
        join pg_catalog.pg_stat_get_activity(null) as a on a.pid = s.pid
        where s.state is distinct from 'backup'
            and not exists (
                -- A logical subscriber keeps indexes of its own.
                select
                from pg_catalog.pg_replication_slots as l
                where l.active_pid = s.pid and l.slot_type = 'logical'
            )
    ) as standbys,
    pg_catalog.current_setting('track_counts')::bool as counts
from pg_catalog.pg_stat_database as d
where d.datname = pg_catalog.current_database()
