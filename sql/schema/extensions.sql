-- purpose: the extensions of a database
-- needs: PostgreSQL 14 or later
-- params: none
-- columns: oid bigint, name text, schema text, version text
select
  x.oid::bigint as oid,
  x.extname::text as name,
  n.nspname::text as schema,
  x.extversion as version
from pg_catalog.pg_extension x
join pg_catalog.pg_namespace n on n.oid = x.extnamespace
order by x.extname
