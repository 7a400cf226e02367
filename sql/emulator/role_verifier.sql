-- purpose: what a role's password is checked with
-- needs: PostgreSQL 14; superuser
-- params: $1 role text
-- columns: verifier text
select a.rolpassword as verifier
  from pg_catalog.pg_authid as a
 where a.rolname = $1 and a.rolcanlogin
