-- purpose: says whether the table of migrations is there
-- needs: PostgreSQL 14
-- params: none
-- columns: ready boolean
select pg_catalog.to_regclass('lakeops.schema_migration') is not null as ready
