-- purpose: tables that are mostly read from end to end, by the rows that were read so; a screen: only plans show
--   which index would help
-- needs: PostgreSQL 14
-- params: $1 min_rows int8
-- columns: schema_name text, table_name text, seq_scan int8, seq_tup_read int8, idx_scan int8,
--   n_live_tup int8, avg_tup_per_scan int8, table_size_bytes int8
select
    s.schemaname::text as schema_name,
    s.relname::text as table_name,
    s.seq_scan,
    s.seq_tup_read,
    -- Null for a table without any index: the worst ones.
    coalesce(s.idx_scan, 0) as idx_scan,
    s.n_live_tup,
    s.seq_tup_read / nullif(s.seq_scan, 0) as avg_tup_per_scan,
    pg_catalog.pg_relation_size(s.relid) as table_size_bytes
from pg_catalog.pg_stat_user_tables as s
where s.n_live_tup >= $1
    and s.seq_scan > coalesce(s.idx_scan, 0)
order by s.seq_tup_read desc, 1, 2
