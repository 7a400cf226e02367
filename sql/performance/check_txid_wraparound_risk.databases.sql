-- purpose: the age of each database, the oldest first: the oldest one decides when the server stops,
--   also when nobody can connect to it
-- needs: PostgreSQL 14
-- params: none
-- columns: database_name text, is_current bool, may_connect bool, xid_age int8, multixact_age int8
select
    d.datname::text as database_name,
    d.datname = pg_catalog.current_database() as is_current,
    d.datallowconn and pg_catalog.has_database_privilege(d.oid, 'CONNECT') as may_connect,
    pg_catalog.age(d.datfrozenxid)::int8 as xid_age,
    pg_catalog.mxid_age(d.datminmxid)::int8 as multixact_age
from pg_catalog.pg_database as d
order by greatest(pg_catalog.age(d.datfrozenxid), pg_catalog.mxid_age(d.datminmxid)) desc, d.datname
