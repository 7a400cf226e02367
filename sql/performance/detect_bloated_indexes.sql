-- purpose: what the entries of each B-tree are like, for an estimate of how large it had to be
-- needs: PostgreSQL 14; widths of columns of variable length need ANALYZE and SELECT
-- params: none
-- columns: oid int8, block_size int4, attributes int8, known int8, width float8, has_nulls bool,
--   distinct_values float8, can_deduplicate bool, live_rows int8
select
    c.oid::int8 as oid,
    pg_catalog.current_setting('block_size')::int4 as block_size,
    e.attributes,
    e.known,
    e.width,
    e.has_nulls,
    case when e.attributes = 1 then e.distinct_values end as distinct_values,
    e.can_deduplicate
        and not i.indisunique
        and i.indnatts = i.indnkeyatts
        and coalesce(not 'deduplicate_items=off' = any (c.reloptions), true) as can_deduplicate,
    s.n_live_tup as live_rows
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid and c.relkind = 'i'
join pg_catalog.pg_class as t on t.oid = i.indrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_am as am on am.oid = c.relam and am.amname = 'btree'
left join pg_catalog.pg_stat_all_tables as s on s.relid = t.oid
cross join lateral (
    select
        pg_catalog.count(*) as attributes,
        pg_catalog.count(*) filter (where a.attlen > 0 or p.avg_width is not null) as known,
        pg_catalog.sum(
            (1 - coalesce(p.null_frac, 0)) * coalesce(p.avg_width, nullif(a.attlen, -1), 0)
        )::float8 as width,
        coalesce(pg_catalog.bool_or(p.null_frac > 0), false) as has_nulls,
        pg_catalog.max(p.n_distinct)::float8 as distinct_values,
        -- Values that are equal and yet differ (1.0 and 1.00) are never merged.
        not pg_catalog.bool_or(
            a.atttypid = any (
                array['numeric', 'float4', 'float8', 'jsonb']::pg_catalog.regtype[]
            )
            or y.typtype in ('c', 'r')
            or y.typcategory = 'A'
        ) as can_deduplicate
    from pg_catalog.pg_attribute as a
    join pg_catalog.pg_type as y on y.oid = a.atttypid
    left join pg_catalog.pg_attribute as b
        on b.attrelid = t.oid and b.attnum = i.indkey[a.attnum - 1] and b.attnum > 0
    left join pg_catalog.pg_stats as p
        on p.schemaname = n.nspname
        and not p.inherited
        and (
            p.tablename = t.relname and p.attname = b.attname
            or p.tablename = c.relname and b.attname is null and p.attname = a.attname
        )
    where a.attrelid = c.oid and a.attnum > 0
) as e
where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    and t.relpersistence <> 't'
