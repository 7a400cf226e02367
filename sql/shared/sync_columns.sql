-- purpose: the columns of a table or view with their types, their place in the primary key, and how many
--   blocks can be read piece by piece
-- needs: PostgreSQL 14
-- params: $1 table text
-- columns: name text, type_name text, key_position int4, generated bool, blocks int8, rows float8
select
    a.attname::text as name,
    pg_catalog.format_type(a.atttypid, null) as type_name,
    pg_catalog.array_position(i.indkey::int2[], a.attnum) as key_position,
    a.attgenerated <> '' as generated,
    -- A view has no blocks, a partitioned table only those of its partitions: both are read in one go.
    case
        when c.relkind in ('r', 'm')
            then pg_catalog.pg_relation_size(c.oid)
                / pg_catalog.current_setting('block_size')::int8
    end as blocks,
    c.reltuples::float8 as rows
from pg_catalog.pg_attribute as a
join pg_catalog.pg_class as c on c.oid = a.attrelid
left join pg_catalog.pg_index as i on i.indrelid = c.oid and i.indisprimary
where a.attrelid = pg_catalog.to_regclass($1::text)
    and a.attnum > 0
    and not a.attisdropped
order by a.attnum
