-- purpose: how far transaction numbers and multixacts reach in each database, as a share of all that there are
-- needs: PostgreSQL 14
-- params: none
-- columns: database_name text, xid_age int8, xid_used float8, multixact_age int8, multixact_used float8
select
    d.datname::text as database_name,
    pg_catalog.age(d.datfrozenxid)::int8 as xid_age,
    pg_catalog.age(d.datfrozenxid)::float8 / 2147483647 as xid_used,
    pg_catalog.mxid_age(d.datminmxid)::int8 as multixact_age,
    pg_catalog.mxid_age(d.datminmxid)::float8 / 2147483647 as multixact_used
from pg_catalog.pg_database as d
order by 2 desc, 1
