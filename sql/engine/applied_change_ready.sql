-- purpose: says whether the table of keys is there and may be used
-- needs: PostgreSQL 14
-- params: none
-- columns: ready boolean
select exists (
    select
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = 'lakeops'
       and c.relname = 'applied_change'
       and pg_catalog.has_schema_privilege(n.oid, 'usage')
       and pg_catalog.has_table_privilege(c.oid, 'insert')
       and pg_catalog.has_table_privilege(c.oid, 'select')
) as ready
