-- purpose: makes the table of migrations that this database has
-- needs: PostgreSQL 14; create on schema lakeops
-- params: none
-- columns: none
create table if not exists lakeops.schema_migration (
    version text primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default pg_catalog.now(),
    applied_by text not null default session_user,
    run text default pg_catalog.current_setting('lakeops.run', true)
)
