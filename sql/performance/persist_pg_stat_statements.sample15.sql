-- purpose: the counters of every statement, without its text; since 15 with temporary blocks and JIT
-- needs: PostgreSQL 15 to 16; the extension pg_stat_statements (the tool puts its schema in the place of `public`);
--   without pg_read_all_stats the statements of other users have no queryid and are left out
-- params: none
-- columns: userid int8, dbid int8, toplevel bool, queryid int8, user_name text, plans int8, calls int8,
--   rows int8, shared_blks_hit int8, shared_blks_read int8, shared_blks_dirtied int8, shared_blks_written
--   int8, local_blks_hit int8, local_blks_read int8, local_blks_dirtied int8, local_blks_written int8,
--   temp_blks_read int8, temp_blks_written int8, wal_records int8, wal_fpi int8, wal_bytes int8,
--   total_plan_time float8, min_plan_time float8, max_plan_time float8, mean_plan_time float8,
--   stddev_plan_time float8, total_exec_time float8, min_exec_time float8, max_exec_time float8,
--   mean_exec_time float8, stddev_exec_time float8, shared_blk_read_time float8, shared_blk_write_time
--   float8, temp_blk_read_time float8, temp_blk_write_time float8, jit_functions int8, jit_generation_time
--   float8, jit_inlining_count int8, jit_inlining_time float8, jit_optimization_count int8,
--   jit_optimization_time float8, jit_emission_count int8, jit_emission_time float8
select
    s.userid::int8 as userid,
    s.dbid::int8 as dbid,
    s.toplevel,
    s.queryid,
    pg_catalog.pg_get_userbyid(s.userid)::text as user_name,
    s.plans,
    s.calls,
    s.rows,
    s.shared_blks_hit,
    s.shared_blks_read,
    s.shared_blks_dirtied,
    s.shared_blks_written,
    s.local_blks_hit,
    s.local_blks_read,
    s.local_blks_dirtied,
    s.local_blks_written,
    s.temp_blks_read,
    s.temp_blks_written,
    s.wal_records,
    s.wal_fpi,
    s.wal_bytes::int8 as wal_bytes,
    s.total_plan_time,
    s.min_plan_time,
    s.max_plan_time,
    s.mean_plan_time,
    s.stddev_plan_time,
    s.total_exec_time,
    s.min_exec_time,
    s.max_exec_time,
    s.mean_exec_time,
    s.stddev_exec_time,
    s.blk_read_time as shared_blk_read_time,
    s.blk_write_time as shared_blk_write_time,
    s.temp_blk_read_time,
    s.temp_blk_write_time,
    s.jit_functions,
    s.jit_generation_time,
    s.jit_inlining_count,
    s.jit_inlining_time,
    s.jit_optimization_count,
    s.jit_optimization_time,
    s.jit_emission_count,
    s.jit_emission_time
from public.pg_stat_statements(false) as s
where s.queryid is not null
