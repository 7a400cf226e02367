-- purpose: commits a transaction that changes nothing, so that recovery finds one to stop before
-- needs: PostgreSQL 14
-- params: none
-- columns: xid text
select pg_catalog.pg_current_xact_id()::text as xid
