-- purpose: guards a migration: whether nobody has carried it out meanwhile
-- needs: PostgreSQL 14; select on lakeops.schema_migration
-- params: $1 version text
-- columns: pending boolean
select not exists (
    select from lakeops.schema_migration where version = $1
) as pending
