-- purpose: how many clients do something, or hold a transaction open
-- needs: PostgreSQL 14; pg_read_all_stats or superuser
-- params: none
-- columns: sessions bigint
select pg_catalog.count(*) as sessions
  from pg_catalog.pg_stat_activity as a
 where a.backend_type = 'client backend'
   and a.pid <> pg_catalog.pg_backend_pid()
   and a.application_name <> 'lakeops:emulator'
   and a.state is distinct from 'idle'
