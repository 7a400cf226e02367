-- purpose: says how far the maintenance command of a session is
-- needs: PostgreSQL 14
-- params: $1 application_name text
-- columns: command text, phase text, done bigint, total bigint
with own as (
    select a.pid from pg_catalog.pg_stat_activity as a where a.application_name = $1
)
select 'vacuum' as command, p.phase, p.heap_blks_scanned as done, p.heap_blks_total as total
  from pg_catalog.pg_stat_progress_vacuum as p join own using (pid)
union all
select 'create index', p.phase, p.blocks_done, p.blocks_total
  from pg_catalog.pg_stat_progress_create_index as p join own using (pid)
union all
select 'analyze', p.phase, p.sample_blks_scanned, p.sample_blks_total
  from pg_catalog.pg_stat_progress_analyze as p join own using (pid)
union all
select 'rewrite', p.phase, p.heap_blks_scanned, p.heap_blks_total
  from pg_catalog.pg_stat_progress_cluster as p join own using (pid)
