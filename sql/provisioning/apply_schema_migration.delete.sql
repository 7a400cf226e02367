-- purpose: forgets a migration in the transaction that undoes it
-- needs: PostgreSQL 14; select and delete on lakeops.schema_migration
-- params: $1 version text
-- columns: none
delete from lakeops.schema_migration where version = $1
