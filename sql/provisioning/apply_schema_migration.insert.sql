-- purpose: records a migration in the transaction that carries it out; a rival waits here
-- needs: PostgreSQL 14; insert on lakeops.schema_migration
-- params: $1 version text, $2 name text, $3 checksum text
-- columns: none
insert into lakeops.schema_migration (version, name, checksum)
values ($1, $2, $3)
