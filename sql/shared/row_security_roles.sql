-- purpose: roles that row level security does not hold, and those that are asked for
-- needs: PostgreSQL 14
-- params: $1 roles text[]
-- columns: role text, superuser boolean, bypass boolean, login boolean, asked boolean
select r.rolname::text as role,
       r.rolsuper as superuser,
       r.rolbypassrls as bypass,
       r.rolcanlogin as login,
       r.rolname::text = any ($1::text[]) as asked
  from pg_catalog.pg_roles as r
 where r.rolsuper
    or r.rolbypassrls
    or r.rolname::text = any ($1::text[])
 order by r.rolname
