-- purpose: which of some names are names of functions that may act or give another answer each time
-- needs: PostgreSQL 14
-- params: $1 names text[]
-- columns: name text
select distinct p.proname::text as name
from pg_catalog.pg_proc as p
where p.proname::text = any($1::text[]) and p.provolatile = 'v'
order by 1
