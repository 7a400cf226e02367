-- purpose: extended statistics
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, relation bigint, schema text, name text, definition text, comment text
select
  s.oid::bigint as oid,
  s.stxrelid::bigint as relation,
  n.nspname::text as schema,
  s.stxname::text as name,
  pg_catalog.pg_get_statisticsobjdef(s.oid) as definition,
  pg_catalog.obj_description(s.oid, 'pg_statistic_ext') as comment
from pg_catalog.pg_statistic_ext s
join pg_catalog.pg_namespace n on n.oid = s.stxnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
order by 3, 4
