-- purpose: where pg_stat_statements is, and whether the server loads it
-- needs: PostgreSQL 14; there is no row without the extension
-- params: none
-- columns: schema_name text, loaded bool
select
    n.nspname::text as schema_name,
    -- The library defines it.
    pg_catalog.current_setting('pg_stat_statements.max', true) is not null as loaded
from pg_catalog.pg_extension as e
join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
where e.extname = 'pg_stat_statements'
