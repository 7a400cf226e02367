-- purpose: tables and partitioned tables; a replica identity by index counts as the default one
-- needs: PostgreSQL 14 or later; an empty search_path, so that definitions come with qualified names
-- params: $1 excluded text[] (schemas that are left out)
-- columns: oid bigint, schema text, name text, unlogged boolean, partition_key text, partition_of bigint, bound text, inherits bigint[], options text[], row_security boolean, forced_row_security boolean, replica_identity text, comment text, grants jsonb
select
  c.oid::bigint as oid,
  n.nspname::text as schema,
  c.relname::text as name,
  c.relpersistence = 'u' as unlogged,
  pg_catalog.pg_get_partkeydef(c.oid) as partition_key,
  case when c.relispartition then (
    select i.inhparent::bigint from pg_catalog.pg_inherits i where i.inhrelid = c.oid
  ) end as partition_of,
  pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bound,
  array(
    select i.inhparent::bigint from pg_catalog.pg_inherits i
    where i.inhrelid = c.oid and not c.relispartition order by i.inhseqno
  ) as inherits,
  coalesce(c.reloptions, '{}') as options,
  c.relrowsecurity as row_security,
  c.relforcerowsecurity as forced_row_security,
  case c.relreplident when 'i' then 'd' else c.relreplident::text end as replica_identity,
  pg_catalog.obj_description(c.oid, 'pg_class') as comment,
  (
    select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'grantee', g.rolname, 'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
    from pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) a
    left join pg_catalog.pg_roles g on g.oid = a.grantee
    where a.grantee <> c.relowner
  ) as grants
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p')
  and c.relpersistence <> 't'
  and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname::text <> all ($1::text[])
  and not exists (
    select from pg_catalog.pg_depend e
    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid and e.deptype = 'e'
  )
order by 2, 3
