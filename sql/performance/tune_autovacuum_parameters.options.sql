-- purpose: the storage parameters of a table, for before and after
-- needs: PostgreSQL 14
-- params: $1 table_name text
-- columns: options text[]
select coalesce(c.reloptions, '{}') as options
from pg_catalog.pg_class as c
where c.oid = pg_catalog.to_regclass($1::text)
