-- purpose: replication slots, with the WAL that each keeps and what it holds back
-- needs: PostgreSQL 14; inactive_since and invalidation_reason are null before 17
-- params: none
-- columns: slot_name text, plugin text, slot_type text, active bool, wal_status text, retained_bytes int8,
--   pending_bytes int8, xmin_age int8, catalog_xmin_age int8, inactive_since timestamptz,
--   invalidation_reason text
select
    s.slot_name::text as slot_name,
    s.plugin::text as plugin,
    s.slot_type,
    s.active,
    s.wal_status,
    pg_catalog.pg_wal_lsn_diff(here.lsn, s.restart_lsn)::int8 as retained_bytes,
    pg_catalog.pg_wal_lsn_diff(here.lsn, s.confirmed_flush_lsn)::int8 as pending_bytes,
    pg_catalog.age(s.xmin)::int8 as xmin_age,
    pg_catalog.age(s.catalog_xmin)::int8 as catalog_xmin_age,
    (pg_catalog.to_jsonb(s) ->> 'inactive_since')::timestamptz as inactive_since,
    pg_catalog.to_jsonb(s) ->> 'invalidation_reason' as invalidation_reason
from pg_catalog.pg_replication_slots as s
cross join (
    select case
        when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn()
        else pg_catalog.pg_current_wal_lsn()
    end as lsn
) as here
order by 1
