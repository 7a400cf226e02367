-- purpose: roles that row level security does not hold, those that are asked for, and who asks
-- needs: PostgreSQL 14
-- params: $1 roles text[]
-- columns: role text, superuser boolean, bypass boolean, login boolean, asked boolean, mine boolean
select r.rolname::text as role,
       r.rolsuper as superuser,
       r.rolbypassrls as bypass,
       r.rolcanlogin as login,
       r.rolname::text = any ($1::text[]) as asked,
       r.rolname = current_user as mine
  from pg_catalog.pg_roles as r
 where r.rolsuper
    or r.rolbypassrls
    or r.rolname::text = any ($1::text[])
    or r.rolname = current_user
 order by r.rolname
