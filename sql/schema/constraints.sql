-- purpose: constraints of tables, those that a parent hands down left out; not-null constraints are a property of the column
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, relation bigint, name text, kind text, definition text, index bigint, validated boolean, comment text
select
  k.oid::bigint as oid,
  k.conrelid::bigint as relation,
  k.conname::text as name,
  k.contype::text as kind,
  pg_catalog.pg_get_constraintdef(k.oid) as definition,
  case when k.contype in ('p', 'u', 'x') then k.conindid::bigint end as index,
  k.convalidated as validated,
  pg_catalog.obj_description(k.oid, 'pg_constraint') as comment
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where k.contype in ('c', 'p', 'u', 'x', 'f')
  and k.conparentid = 0
  and k.coninhcount = 0
  and c.relkind in ('r', 'p')
  and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
order by 2, 3
