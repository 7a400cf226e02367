-- purpose: use and size of every index outside the system schemas, the largest first
-- needs: PostgreSQL 14; last_idx_scan is null before 16; the size and definition of an index whose table someone
--   has for himself alone are null
-- params: $1 most int8
-- columns: relid int8, indexrelid int8, schema_name text, table_name text, index_name text, idx_scan int8,
--   idx_tup_read int8, idx_tup_fetch int8, idx_blks_read int8, idx_blks_hit int8, index_size_bytes int8,
--   is_unique bool, is_primary bool, is_valid bool, index_definition text, last_idx_scan timestamptz
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
    s.relid::int8 as relid,
    s.indexrelid::int8 as indexrelid,
    s.schemaname::text as schema_name,
    s.relname::text as table_name,
    s.indexrelname::text as index_name,
    s.idx_scan,
    s.idx_tup_read,
    s.idx_tup_fetch,
    io.idx_blks_read,
    io.idx_blks_hit,
    case when not x.locked then pg_catalog.pg_relation_size(s.indexrelid) end as index_size_bytes,
    i.indisunique as is_unique,
    i.indisprimary as is_primary,
    i.indisvalid as is_valid,
    case when not x.locked then pg_catalog.pg_get_indexdef(s.indexrelid) end as index_definition,
    (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz as last_idx_scan
from pg_catalog.pg_stat_user_indexes as s
join pg_catalog.pg_index as i on i.indexrelid = s.indexrelid
join pg_catalog.pg_class as c on c.oid = s.indexrelid
join pg_catalog.pg_statio_user_indexes as io on io.indexrelid = s.indexrelid
cross join lateral (
    select exists (select from locked as l where l.oid = s.relid) as locked
) as x
where c.relpersistence <> 't'
order by c.relpages desc, c.oid
limit $1
