-- purpose: finds other sessions of this application name, which a dead process may have left at work
-- needs: PostgreSQL 14
-- params: $1 application_name text
-- columns: pid integer, state text
select a.pid, a.state
  from pg_catalog.pg_stat_activity as a
 where a.application_name = $1
   and a.pid <> pg_catalog.pg_backend_pid()
 order by a.pid
