-- purpose: the statements of others that took most time, with their share; a mean alone misses all that is short and frequent
-- needs: PostgreSQL 14; the extension pg_stat_statements in the schema public; without pg_read_all_stats the
--   statements of other users are left out
-- params: $1 most int8
-- columns: queryid int8, query text, calls int8, total_exec_time float8, mean_exec_time float8, rows int8,
--   share float8
select
    s.queryid,
    s.query,
    s.calls,
    s.total_exec_time,
    s.mean_exec_time,
    s.rows,
    s.total_exec_time / nullif(pg_catalog.sum(s.total_exec_time) over (), 0) as share
from public.pg_stat_statements as s
where s.queryid is not null
    -- What lakeops reads with is nobody's slow query.
    and s.query not like 'select pg_catalog.to_jsonb(q) from (%'
order by s.total_exec_time desc
limit $1
