-- purpose: policies of row level security
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, relation bigint, name text, permissive boolean, command text, roles text[], using_expression text, check_expression text, comment text
select
  p.oid::bigint as oid,
  p.polrelid::bigint as relation,
  p.polname::text as name,
  p.polpermissive as permissive,
  case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
    when 'd' then 'delete' else 'all' end as command,
  array(
    select coalesce(r.rolname::text, 'public')
    from pg_catalog.unnest(p.polroles) m (oid)
    left join pg_catalog.pg_roles r on r.oid = m.oid
    order by 1
  ) as roles,
  pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_expression,
  pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_expression,
  pg_catalog.obj_description(p.oid, 'pg_policy') as comment
from pg_catalog.pg_policy p
join pg_catalog.pg_class c on c.oid = p.polrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
order by 2, 3
