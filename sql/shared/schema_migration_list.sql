-- purpose: lists the migrations that this database has
-- needs: PostgreSQL 14; select on lakeops.schema_migration
-- params: none
-- columns: version text, name text, checksum text, applied_at timestamptz, applied_by text, run text
select version, name, checksum, applied_at, applied_by, run
  from lakeops.schema_migration
