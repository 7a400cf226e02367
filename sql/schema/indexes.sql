-- purpose: indexes that belong to no constraint and to no index of a parent
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, relation bigint, schema text, name text, definition text, is_unique boolean, valid boolean, comment text
select
  i.oid::bigint as oid,
  x.indrelid::bigint as relation,
  n.nspname::text as schema,
  i.relname::text as name,
  pg_catalog.pg_get_indexdef(i.oid) as definition,
  x.indisunique as is_unique,
  x.indisvalid as valid,
  pg_catalog.obj_description(i.oid, 'pg_class') as comment
from pg_catalog.pg_index x
join pg_catalog.pg_class i on i.oid = x.indexrelid
join pg_catalog.pg_class c on c.oid = x.indrelid
join pg_catalog.pg_namespace n on n.oid = i.relnamespace
where c.relkind in ('r', 'p', 'm')
  and c.relpersistence <> 't'
  and not i.relispartition
  and not exists (
    select from pg_catalog.pg_constraint k where k.conindid = i.oid and k.contype in ('p', 'u', 'x')
  )
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e'
  )
order by 3, 4
