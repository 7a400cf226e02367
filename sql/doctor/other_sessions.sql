-- purpose: counts the sessions of others, so that a server that somebody works on is left running
-- needs: PostgreSQL 14
-- params: none
-- columns: others bigint
select pg_catalog.count(*) as others
from pg_catalog.pg_stat_activity as a
where a.backend_type = 'client backend'
  and a.pid <> pg_catalog.pg_backend_pid()
