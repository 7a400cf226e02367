-- purpose: where pgstatindex is, and whether we may use it
-- needs: PostgreSQL 14; the extension pgstattuple, else there is no row
-- params: none
-- columns: schema_name text, may_use bool
select
    n.nspname::text as schema_name,
    pg_catalog.has_function_privilege(p.oid, 'EXECUTE') as may_use
from pg_catalog.pg_extension as e
join pg_catalog.pg_namespace as n on n.oid = e.extnamespace
join pg_catalog.pg_proc as p on p.pronamespace = n.oid and p.proname = 'pgstatindex'
where e.extname = 'pgstattuple'
    and p.proargtypes[0] = 'pg_catalog.regclass'::pg_catalog.regtype
