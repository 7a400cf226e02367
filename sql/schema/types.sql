-- purpose: enums, domains and composite types; the attributes of composites come with the columns
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, schema text, name text, kind text, relation bigint, labels text[], base text, collation text, not_null boolean, default_value text, checks jsonb, comment text, grants jsonb
select
  t.oid::bigint as oid,
  n.nspname::text as schema,
  t.typname::text as name,
  t.typtype::text as kind,
  t.typrelid::bigint as relation,
  array(
    select l.enumlabel::text from pg_catalog.pg_enum l where l.enumtypid = t.oid order by l.enumsortorder
  ) as labels,
  case when t.typtype = 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) end as base,
  case when t.typtype = 'd' and t.typcollation <> b.typcollation
    then pg_catalog.format('%I.%I', o.nspname, c.collname) end as collation,
  t.typnotnull as not_null,
  t.typdefault as default_value,
  (
    select coalesce(pg_catalog.jsonb_object_agg(k.conname, pg_catalog.pg_get_constraintdef(k.oid)), '{}')
    from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c'
  ) as checks,
  pg_catalog.obj_description(t.oid, 'pg_type') as comment,
  (
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
    from pg_catalog.aclexplode(coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))) a
    left join pg_catalog.pg_roles g on g.oid = a.grantee
    where a.grantee <> t.typowner
  ) as grants
from pg_catalog.pg_type t
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
left join pg_catalog.pg_class r on r.oid = t.typrelid
left join pg_catalog.pg_type b on b.oid = t.typbasetype
left join pg_catalog.pg_collation c on c.oid = t.typcollation
left join pg_catalog.pg_namespace o on o.oid = c.collnamespace
where (t.typtype in ('e', 'd') or t.typtype = 'c' and r.relkind = 'c')
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and e.objid = t.oid and e.deptype = 'e'
  )
order by 2, 3
