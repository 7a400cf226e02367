-- purpose: row level security of tables: whether it is on, for the owner too, and by which policies
-- needs: PostgreSQL 14
-- params: $1 tables text[], $2 tenant_column text
-- columns: name text, schema text, relation text, kind text, owner text, enabled boolean,
--   forced boolean, column_type text, indexed boolean, policies jsonb, grantees text[]
select t.name,
       n.nspname::text as schema,
       c.relname::text as relation,
       c.relkind::text as kind,
       pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
       c.relrowsecurity as enabled,
       c.relforcerowsecurity as forced,
       pg_catalog.format_type(a.atttypid, a.atttypmod) as column_type,
       exists (
           select
             from pg_catalog.pg_index as i
            where i.indrelid = c.oid
              and i.indisvalid
              and i.indkey[0] = a.attnum
       ) as indexed,
       coalesce((
           select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                      'name', p.polname,
                      'permissive', p.polpermissive,
                      'command', p.polcmd,
                      'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
                      'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
                      'comment', pg_catalog.obj_description(p.oid, 'pg_policy')
                  ) order by p.polname)
             from pg_catalog.pg_policy as p
            where p.polrelid = c.oid
       ), '[]'::jsonb) as policies,
       coalesce((
           select pg_catalog.array_agg(g.rolname order by g.rolname)
             from (
                 select r.rolname::text as rolname
                   from pg_catalog.aclexplode(c.relacl) as x
                   join pg_catalog.pg_roles as r on r.oid = x.grantee
                  where x.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
                  group by r.rolname
                 having pg_catalog.count(distinct x.privilege_type) = 4
             ) as g
       ), '{}'::text[]) as grantees
  from pg_catalog.unnest($1::text[]) as t (name)
  left join pg_catalog.pg_class as c on c.oid = pg_catalog.to_regclass(t.name)
  left join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  left join pg_catalog.pg_attribute as a
    on a.attrelid = c.oid and a.attname = $2::text and not a.attisdropped
