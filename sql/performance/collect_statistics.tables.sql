-- purpose: counters, sizes and ages of every table outside the system schemas, the largest first
-- needs: PostgreSQL 14; what 16 began to count is null before it; sizes of a table that someone has for himself
--   alone are null
-- params: $1 most int8
-- columns: relid int8, schema_name text, table_name text, seq_scan int8, seq_tup_read int8, idx_scan int8,
--   idx_tup_fetch int8, n_tup_ins int8, n_tup_upd int8, n_tup_del int8, n_tup_hot_upd int8,
--   n_tup_newpage_upd int8, n_live_tup int8, n_dead_tup int8, n_mod_since_analyze int8,
--   n_ins_since_vacuum int8, vacuum_count int8, autovacuum_count int8, analyze_count int8,
--   autoanalyze_count int8, heap_blks_read int8, heap_blks_hit int8, relpages int8, relallvisible int8,
--   reltuples float8, table_size_bytes int8, indexes_size_bytes int8, toast_size_bytes int8,
--   total_size_bytes int8, xid_age int8, mxid_age int8, last_seq_scan timestamptz,
--   last_idx_scan timestamptz, last_vacuum timestamptz, last_autovacuum timestamptz,
--   last_analyze timestamptz, last_autoanalyze timestamptz
with locked as (
    select coalesce(i.indrelid, l.relation) as oid
    from pg_catalog.pg_locks as l
    left join pg_catalog.pg_index as i on i.indexrelid = l.relation
    where l.locktype = 'relation'
        and l.mode = 'AccessExclusiveLock'
        and l.database = (
            select d.oid
            from pg_catalog.pg_database as d
            where d.datname = pg_catalog.current_database()
        )
)
select
    c.oid::int8 as relid,
    s.schemaname::text as schema_name,
    s.relname::text as table_name,
    s.seq_scan,
    s.seq_tup_read,
    -- Null for a table without any index.
    s.idx_scan,
    s.idx_tup_fetch,
    s.n_tup_ins,
    s.n_tup_upd,
    s.n_tup_del,
    s.n_tup_hot_upd,
    -- From 16 on.
    (pg_catalog.to_jsonb(s) ->> 'n_tup_newpage_upd')::int8 as n_tup_newpage_upd,
    s.n_live_tup,
    s.n_dead_tup,
    s.n_mod_since_analyze,
    s.n_ins_since_vacuum,
    s.vacuum_count,
    s.autovacuum_count,
    s.analyze_count,
    s.autoanalyze_count,
    io.heap_blks_read,
    io.heap_blks_hit,
    c.relpages::int8 as relpages,
    c.relallvisible::int8 as relallvisible,
    c.reltuples::float8 as reltuples,
    z.heap as table_size_bytes,
    z.indexes as indexes_size_bytes,
    z.whole - z.heap - z.indexes as toast_size_bytes,
    z.whole as total_size_bytes,
    case when c.relfrozenxid <> '0'::xid then pg_catalog.age(c.relfrozenxid)::int8 end as xid_age,
    case when c.relminmxid <> '0'::xid then pg_catalog.mxid_age(c.relminmxid)::int8 end as mxid_age,
    (pg_catalog.to_jsonb(s) ->> 'last_seq_scan')::timestamptz as last_seq_scan,
    (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz as last_idx_scan,
    s.last_vacuum,
    s.last_autovacuum,
    s.last_analyze,
    s.last_autoanalyze
from pg_catalog.pg_stat_user_tables as s
join pg_catalog.pg_class as c on c.oid = s.relid
join pg_catalog.pg_statio_user_tables as io on io.relid = s.relid
left join lateral (
    select
        pg_catalog.pg_relation_size(c.oid) as heap,
        pg_catalog.pg_indexes_size(c.oid) as indexes,
        pg_catalog.pg_total_relation_size(c.oid) as whole
    where not exists (select from locked as l where l.oid = c.oid)
) as z on true
where c.relpersistence <> 't'
order by c.relpages desc, c.oid
limit $1
