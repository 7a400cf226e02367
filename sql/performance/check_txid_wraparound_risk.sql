-- purpose: how far the counters of transactions and multixacts have come, and at which ages the server
--   acts by itself
-- needs: PostgreSQL 14
-- params: none
-- columns: next_xid int8, next_multixact int8, autovacuum bool, freeze_max_age int8,
--   multixact_freeze_max_age int8, failsafe_age int8, multixact_failsafe_age int8, in_recovery bool
select
    -- Asking for the snapshot takes no number.
    pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 as next_xid,
    (d.datminmxid::text::int8 + pg_catalog.mxid_age(d.datminmxid)::int8) % 4294967296
        as next_multixact,
    pg_catalog.current_setting('autovacuum')::bool as autovacuum,
    pg_catalog.current_setting('autovacuum_freeze_max_age')::int8 as freeze_max_age,
    pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int8
        as multixact_freeze_max_age,
    pg_catalog.current_setting('vacuum_failsafe_age')::int8 as failsafe_age,
    pg_catalog.current_setting('vacuum_multixact_failsafe_age')::int8 as multixact_failsafe_age,
    pg_catalog.pg_is_in_recovery() as in_recovery
from pg_catalog.pg_database as d
where d.datname = pg_catalog.current_database()
