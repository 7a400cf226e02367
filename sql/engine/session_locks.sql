-- purpose: lists the locks on relations that a session holds, those of the system and our own left out
-- needs: PostgreSQL 14
-- params: $1 application_name text
-- columns: relation text, mode text
select distinct n.nspname || '.' || c.relname as relation, l.mode
  from pg_catalog.pg_stat_activity as a
  join pg_catalog.pg_locks as l on l.pid = a.pid
  join pg_catalog.pg_class as c on c.oid = l.relation
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where a.application_name = $1
   and l.granted
   and l.database = (
           select d.oid from pg_catalog.pg_database as d
            where d.datname = pg_catalog.current_database()
       )
   and n.nspname not in ('pg_catalog', 'pg_toast', 'information_schema', 'lakeops')
 order by relation, l.mode
