-- purpose: tables with many rows, with what archiving them needs: a key, columns that say when, nobody who
--   points at them
-- needs: PostgreSQL 14; the last scan is known from 16 on
-- params: $1 least_rows int8
-- columns: table_name text, rows float8, bytes int8, idle_seconds float8, has_key bool, moments text[],
--   referenced_by text[]
select
    pg_catalog.format('%I.%I', n.nspname, c.relname) as table_name,
    leaves.rows,
    leaves.bytes,
    extract(
        epoch from pg_catalog.clock_timestamp() - greatest(
            (pg_catalog.to_jsonb(s) ->> 'last_seq_scan')::timestamptz,
            (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz
        )
    )::float8 as idle_seconds,
    exists (
        select from pg_catalog.pg_index as i where i.indrelid = c.oid and i.indisprimary
    ) as has_key,
    array(
        select a.attname::text
        from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid
            and a.attnum > 0
            and not a.attisdropped
            and a.atttypid in (
                'pg_catalog.timestamptz'::regtype, 'pg_catalog.timestamp'::regtype,
                'pg_catalog.date'::regtype
            )
        order by
            coalesce(
                pg_catalog.array_position(
                    array['updated_at', 'modified_at', 'last_modified', 'created_at', 'event_time', 'ts'],
                    a.attname::text
                ),
                99
            ),
            a.attnum
    ) as moments,
    array(
        select k.conrelid::regclass::text
        from pg_catalog.pg_constraint as k
        where k.contype = 'f' and k.confrelid = c.oid and k.conparentid = 0
        order by 1
    ) as referenced_by
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
left join pg_catalog.pg_stat_user_tables as s on s.relid = c.oid
-- A partitioned table is as large as its leaves; an ordinary one has none but itself.
cross join lateral (
    select
        coalesce(sum(greatest(l.reltuples, 0)), c.reltuples)::float8 as rows,
        coalesce(sum(pg_catalog.pg_table_size(l.oid)), pg_catalog.pg_table_size(c.oid))::int8 as bytes
    from pg_catalog.pg_partition_tree(c.oid) as t
    join pg_catalog.pg_class as l on l.oid = t.relid
    where t.isleaf
) as leaves
where c.relkind in ('r', 'p')
    and not c.relispartition
    and c.relpersistence <> 't'
    and leaves.rows >= $1::int8
    and n.nspname not in ('pg_catalog', 'information_schema', 'lakeops')
    and n.nspname not like 'pg\_toast%'
order by leaves.bytes desc, 1
