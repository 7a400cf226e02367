-- purpose: the names of the roles, or of the databases, that are a branch's own
-- needs: PostgreSQL 14
-- params: $1 kind text
-- columns: name text
select r.rolname::text as name
  from pg_catalog.pg_roles as r
 where $1::text = 'role'
 union all
select d.datname::text
  from pg_catalog.pg_database as d
 where $1::text = 'database' and d.datallowconn
