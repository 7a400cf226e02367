-- purpose: sequences that are no part of an identity column
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, schema text, name text, type text, start bigint, minimum bigint, maximum bigint, increment bigint, cache bigint, cycle boolean, unlogged boolean, owner_table bigint, owner_part integer, comment text, grants jsonb
select
  c.oid::bigint as oid,
  n.nspname::text as schema,
  c.relname::text as name,
  pg_catalog.format_type(s.seqtypid, null) as type,
  s.seqstart as start,
  s.seqmin as minimum,
  s.seqmax as maximum,
  s.seqincrement as increment,
  s.seqcache as cache,
  s.seqcycle as cycle,
  c.relpersistence = 'u' as unlogged,
  d.refobjid::bigint as owner_table,
  d.refobjsubid as owner_part,
  pg_catalog.obj_description(c.oid, 'pg_class') as comment,
  (
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
    from pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('s', c.relowner))) a
    left join pg_catalog.pg_roles g on g.oid = a.grantee
    where a.grantee <> c.relowner
  ) as grants
from pg_catalog.pg_sequence s
join pg_catalog.pg_class c on c.oid = s.seqrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_depend d
  on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0
  and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
where c.relpersistence <> 't'
  and d.deptype is distinct from 'i'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e'
  )
order by 2, 3
