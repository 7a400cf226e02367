-- purpose: objects that a comparison does not look at, counted by kind
-- needs: PostgreSQL 14 or later
-- params: $1 excluded text[] (schemas that are left out)
-- columns: kind text, count bigint
select q.kind, pg_catalog.count(*) as count
from (
  select 'aggregate' as kind, p.pronamespace as namespace, p.oid,
    'pg_catalog.pg_proc'::pg_catalog.regclass as class
  from pg_catalog.pg_proc p where p.prokind = 'a'
  union all
  select 'foreign table', c.relnamespace, c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass
  from pg_catalog.pg_class c where c.relkind = 'f'
  union all
  select 'range or base type', t.typnamespace, t.oid, 'pg_catalog.pg_type'::pg_catalog.regclass
  from pg_catalog.pg_type t where t.typtype = 'r' or t.typtype = 'b' and t.typcategory <> 'A'
  union all
  select 'operator', o.oprnamespace, o.oid, 'pg_catalog.pg_operator'::pg_catalog.regclass
  from pg_catalog.pg_operator o
  union all
  select 'collation', o.collnamespace, o.oid, 'pg_catalog.pg_collation'::pg_catalog.regclass
  from pg_catalog.pg_collation o
  union all
  select 'text search configuration', o.cfgnamespace, o.oid, 'pg_catalog.pg_ts_config'::pg_catalog.regclass
  from pg_catalog.pg_ts_config o
) q
join pg_catalog.pg_namespace n on n.oid = q.namespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = q.class and e.objid = q.oid and e.deptype = 'e'
  )
group by q.kind
union all
select 'publication', pg_catalog.count(*) from pg_catalog.pg_publication having pg_catalog.count(*) > 0
union all
select 'event trigger', pg_catalog.count(*) from pg_catalog.pg_event_trigger having pg_catalog.count(*) > 0
union all
select 'default privilege', pg_catalog.count(*) from pg_catalog.pg_default_acl having pg_catalog.count(*) > 0
order by 1
