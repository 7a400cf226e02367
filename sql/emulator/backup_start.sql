-- purpose: begins a copy of the data directory while the server runs
-- needs: PostgreSQL 15; superuser
-- params: $1 label text
-- columns: lsn text
select pg_catalog.pg_backup_start($1, true)::text as lsn
