-- purpose: commits a transaction that changes nothing, so that recovery finds one to stop before; as it
--   writes WAL, its commit is flushed before the answer comes
-- needs: PostgreSQL 14
-- params: none
-- columns: lsn text
select pg_catalog.pg_logical_emit_message(true, 'lakeops', 'mark')::text as lsn
