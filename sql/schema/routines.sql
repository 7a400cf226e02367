-- purpose: functions and procedures, aggregates left out
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, schema text, name text, arguments text, signature text, kind text, definition text, comment text, grants jsonb
select
  p.oid::bigint as oid,
  n.nspname::text as schema,
  p.proname::text as name,
  pg_catalog.oidvectortypes(p.proargtypes) as arguments,
  pg_catalog.pg_get_function_arguments(p.oid)
    || coalesce(' returns ' || pg_catalog.pg_get_function_result(p.oid), '') as signature,
  p.prokind::text as kind,
  pg_catalog.pg_get_functiondef(p.oid) as definition,
  pg_catalog.obj_description(p.oid, 'pg_proc') as comment,
  (
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
    from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
    left join pg_catalog.pg_roles g on g.oid = a.grantee
    where a.grantee <> p.proowner
  ) as grants
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where p.prokind in ('f', 'p', 'w')
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and e.objid = p.oid and e.deptype = 'e'
  )
order by 2, 3, 4
