-- purpose: partitions of a table that hold only what is older than a moment: those by range of one column
-- needs: PostgreSQL 14
-- params: $1 table text, $2 column_name text, $3 cut_off timestamptz
-- columns: partition text, partition_schema text, partition_name text, bound text, upper_bound timestamptz
select
    pg_catalog.format('%I.%I', n.nspname, c.relname) as partition,
    n.nspname::text as partition_schema,
    c.relname::text as partition_name,
    b.bound,
    b.upper_bound
from pg_catalog.pg_partitioned_table as p
join pg_catalog.pg_attribute as a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
join pg_catalog.pg_inherits as i on i.inhparent = p.partrelid
join pg_catalog.pg_class as c on c.oid = i.inhrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
cross join lateral (
    select
        pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bound,
        -- No upper bound: the partition takes all that is newer, or is the default one.
        (
            pg_catalog.regexp_match(
                pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)$'
            )
        )[1]::timestamptz as upper_bound
) as b
where p.partrelid = pg_catalog.to_regclass($1::text)
    and p.partstrat = 'r'
    and p.partnatts = 1
    and a.attname = $2::text
    and a.atttypid in (
        'pg_catalog.timestamptz'::regtype, 'pg_catalog.timestamp'::regtype, 'pg_catalog.date'::regtype
    )
    and c.relkind = 'r'
    and b.upper_bound <= $3::timestamptz
order by b.upper_bound, 1
