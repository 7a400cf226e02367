-- purpose: the columns of tables and the attributes of composite types, those that are only inherited left out
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: relation bigint, part integer, name text, type text, collation text, not_null boolean, identity text, sequence jsonb, generated text, expression text, default_oid bigint, comment text, grants jsonb
select
  c.oid::bigint as relation,
  a.attnum::integer as part,
  a.attname::text as name,
  pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
  case when a.attcollation <> t.typcollation
    then pg_catalog.format('%I.%I', o.nspname, l.collname) end as collation,
  a.attnotnull as not_null,
  a.attidentity::text as identity,
  (
    select pg_catalog.jsonb_build_object('start', s.seqstart, 'minimum', s.seqmin, 'maximum', s.seqmax,
      'increment', s.seqincrement, 'cache', s.seqcache, 'cycle', s.seqcycle)
    from pg_catalog.pg_depend d
    join pg_catalog.pg_sequence s on s.seqrelid = d.objid
    where a.attidentity <> ''
      and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'i'
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and d.refobjid = c.oid and d.refobjsubid = a.attnum
  ) as sequence,
  a.attgenerated::text as generated,
  pg_catalog.pg_get_expr(v.adbin, v.adrelid) as expression,
  v.oid::bigint as default_oid,
  pg_catalog.col_description(c.oid, a.attnum) as comment,
  (
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'grantee', g.rolname, 'privilege', x.privilege_type, 'grantable', x.is_grantable)), '[]')
    from pg_catalog.aclexplode(a.attacl) x
    left join pg_catalog.pg_roles g on g.oid = x.grantee
    where x.grantee <> c.relowner
  ) as grants
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_type t on t.oid = a.atttypid
left join pg_catalog.pg_attrdef v on v.adrelid = c.oid and v.adnum = a.attnum
left join pg_catalog.pg_collation l on l.oid = a.attcollation
left join pg_catalog.pg_namespace o on o.oid = l.collnamespace
where c.relkind in ('r', 'p', 'c')
  and c.relpersistence <> 't'
  and a.attnum > 0
  and not a.attisdropped
  and a.attinhcount = 0
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
order by 1, 2
