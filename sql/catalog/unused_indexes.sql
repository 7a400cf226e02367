-- purpose: indexes that nobody has scanned and nothing needs, the largest first; a screen: the tool
--   detect_unused_indexes watches over time and over all replicas before it says so
-- needs: PostgreSQL 14; last_idx_scan is null before 16; counts reach back to the newest reset or start
-- params: $1 min_bytes int8
-- columns: schema_name text, table_name text, index_name text, idx_scan int8, last_idx_scan timestamptz,
--   index_size_bytes int8, counted_since timestamptz
select
    s.schemaname::text as schema_name,
    s.relname::text as table_name,
    s.indexrelname::text as index_name,
    s.idx_scan,
    (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz as last_idx_scan,
    pg_catalog.pg_relation_size(s.indexrelid) as index_size_bytes,
    d.stats_reset as counted_since
from pg_catalog.pg_stat_user_indexes as s
join pg_catalog.pg_index as i on i.indexrelid = s.indexrelid
join pg_catalog.pg_class as c on c.oid = s.indexrelid
join pg_catalog.pg_stat_database as d on d.datname = pg_catalog.current_database()
where s.idx_scan = 0
    -- Checks of uniqueness do not count as scans.
    and not i.indisunique
    and not i.indisexclusion
    and not i.indisreplident
    and not i.indisclustered
    and i.indisvalid
    and not c.relispartition
    and not exists (select from pg_catalog.pg_constraint as o where o.conindid = s.indexrelid)
    and pg_catalog.pg_relation_size(s.indexrelid) >= $1
order by 6 desc, 1, 2, 3
