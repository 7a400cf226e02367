-- purpose: how large a branch is, and how far it has been written
-- needs: PostgreSQL 14; pg_read_all_stats or superuser
-- params: none
-- columns: logical_size_bytes bigint, lsn text
select
    (select pg_catalog.sum(pg_catalog.pg_database_size(d.oid))::bigint
       from pg_catalog.pg_database as d) as logical_size_bytes,
    pg_catalog.pg_current_wal_flush_lsn()::text as lsn
