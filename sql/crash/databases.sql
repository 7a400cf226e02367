-- purpose: the databases of a server that one can connect to
-- needs: PostgreSQL 14
-- params: none
-- columns: name text
select d.datname::text as name
from pg_catalog.pg_database as d
where d.datallowconn and not d.datistemplate
    and pg_catalog.has_database_privilege(d.oid, 'connect')
order by 1
