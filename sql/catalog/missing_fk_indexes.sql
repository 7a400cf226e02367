-- purpose: foreign keys whose columns are not the leading columns, in any order, of a whole index
-- needs: PostgreSQL 14
-- params: none
-- columns: schema_name text, table_name text, constraint_name text, columns text[], referenced_table text,
--   table_size_bytes int8
select
    n.nspname::text as schema_name,
    t.relname::text as table_name,
    f.conname::text as constraint_name,
    (
        select pg_catalog.array_agg(a.attname::text order by k.at)
        from pg_catalog.unnest(f.conkey) with ordinality as k (number, at)
        join pg_catalog.pg_attribute as a on a.attrelid = f.conrelid and a.attnum = k.number
    ) as columns,
    pg_catalog.format('%I.%I', rn.nspname, r.relname) as referenced_table,
    pg_catalog.pg_relation_size(f.conrelid) as table_size_bytes
from pg_catalog.pg_constraint as f
join pg_catalog.pg_class as t on t.oid = f.conrelid
join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
join pg_catalog.pg_class as r on r.oid = f.confrelid
join pg_catalog.pg_namespace as rn on rn.oid = r.relnamespace
where f.contype = 'f'
    -- Once for a partitioned table.
    and f.conparentid = 0
    and not exists (
        select
        from pg_catalog.pg_index as i
        join pg_catalog.pg_class as c on c.oid = i.indexrelid
        join pg_catalog.pg_am as m on m.oid = c.relam
        where i.indrelid = f.conrelid
            and i.indisvalid
            and i.indpred is null
            and (m.amname = 'btree' or m.amname = 'hash' and pg_catalog.cardinality(f.conkey) = 1)
            and f.conkey @> (i.indkey::int2[])[0:pg_catalog.cardinality(f.conkey) - 1]
            and (i.indkey::int2[])[0:pg_catalog.cardinality(f.conkey) - 1] @> f.conkey
    )
order by 6 desc, 1, 2, 3
