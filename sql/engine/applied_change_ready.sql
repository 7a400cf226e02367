-- purpose: says whether the table of keys is there and may be used
-- needs: PostgreSQL 14
-- params: none
-- columns: ready boolean
select
    case when t.oid is null then false
         else pg_catalog.has_table_privilege(t.oid, 'insert')
          and pg_catalog.has_table_privilege(t.oid, 'select')
    end as ready
  from (select pg_catalog.to_regclass('lakeops.applied_change')::oid as oid) as t
