-- purpose: triggers of tables and views, those that a parent hands down left out
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, relation bigint, name text, definition text, enabled text, comment text
select
  g.oid::bigint as oid,
  g.tgrelid::bigint as relation,
  g.tgname::text as name,
  pg_catalog.pg_get_triggerdef(g.oid) as definition,
  g.tgenabled::text as enabled,
  pg_catalog.obj_description(g.oid, 'pg_trigger') as comment
from pg_catalog.pg_trigger g
join pg_catalog.pg_class c on c.oid = g.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where not g.tgisinternal
  and g.tgparentid = 0
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
order by 2, 3
