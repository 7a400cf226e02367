-- purpose: the statements of this database that took the most time in all
-- needs: PostgreSQL 14, pg_stat_statements; without pg_read_all_stats the texts of others are hidden
-- params: $1 most int8, $2 least_calls int8
-- columns: queryid int8, query text, calls int8, total_ms float8, rows int8, blocks int8,
--   temp_blocks int8
select
    s.queryid,
    s.query,
    pg_catalog.sum(s.calls)::int8 as calls,
    pg_catalog.sum(s.total_exec_time)::float8 as total_ms,
    pg_catalog.sum(s.rows)::int8 as rows,
    pg_catalog.sum(s.shared_blks_hit + s.shared_blks_read)::int8 as blocks,
    pg_catalog.sum(s.temp_blks_written)::int8 as temp_blocks
from public.pg_stat_statements as s
where s.dbid = (
    select d.oid
    from pg_catalog.pg_database as d
    where d.datname = pg_catalog.current_database()
)
    and s.queryid is not null
    and s.query <> '<insufficient privilege>'
    -- What lakeops reads with is nobody's workload.
    and s.query not like 'select pg_catalog.to_jsonb(q) from (%'
group by s.queryid, s.query
having pg_catalog.sum(s.calls) >= $2::int8
order by total_ms desc, s.queryid
limit $1::int8
