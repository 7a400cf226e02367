-- purpose: every index outside the system schemas: what it is made of, what needs it, how often it is used
-- needs: PostgreSQL 14; scanned_seconds is null before 16; predicate is null for a table that someone has
--   for himself alone
-- params: none
-- columns: oid int8, table_oid int8, schema_name text, relation_name text, index_name text,
--   table_relation text, table_name text, method text, definition text, is_unique bool,
--   is_primary bool, is_exclusion bool, is_immediate bool, is_valid bool, is_ready bool,
--   is_replica_identity bool, is_clustered bool, is_partitioned bool, parent_oid int8,
--   nulls_equal bool, keys text[], columns int8[], classes int8[], collations int8[],
--   options int8[], included text[], predicate text, is_partial bool, constraints text[],
--   references_to int4, locked bool, size_bytes int8, reltuples float8, storage text[],
--   table_rows float8, scans int8, scanned_seconds float8, building bool
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
    c.oid::int8 as oid,
    t.oid::int8 as table_oid,
    n.nspname::text as schema_name,
    c.relname::text as relation_name,
    pg_catalog.format('%I.%I', n.nspname, c.relname) as index_name,
    t.relname::text as table_relation,
    pg_catalog.format('%I.%I', n.nspname, t.relname) as table_name,
    am.amname::text as method,
    pg_catalog.pg_get_indexdef(c.oid) as definition,
    i.indisunique as is_unique,
    i.indisprimary as is_primary,
    i.indisexclusion as is_exclusion,
    i.indimmediate as is_immediate,
    i.indisvalid as is_valid,
    i.indisready as is_ready,
    i.indisreplident as is_replica_identity,
    i.indisclustered as is_clustered,
    c.relkind = 'I' as is_partitioned,
    h.inhparent::int8 as parent_oid,
    -- From 15 on, NULLS NOT DISTINCT.
    coalesce((pg_catalog.to_jsonb(i) ->> 'indnullsnotdistinct')::bool, false) as nulls_equal,
    k.keys,
    k.columns,
    k.classes,
    k.collations,
    k.options,
    k.included,
    case when not x.locked then pg_catalog.pg_get_expr(i.indpred, i.indrelid) end as predicate,
    i.indpred is not null as is_partial,
    coalesce(o.constraints, '{}') as constraints,
    coalesce(o.references_to, 0)::int4 as references_to,
    x.locked,
    case
        when x.locked then c.relpages::int8 * pg_catalog.current_setting('block_size')::int8
        when c.relkind = 'I' then 0
        else pg_catalog.pg_relation_size(c.oid)
    end as size_bytes,
    c.reltuples::float8 as reltuples,
    coalesce(c.reloptions, '{}') as storage,
    t.reltuples::float8 as table_rows,
    s.idx_scan as scans,
    -- From 16 on.
    extract(
        epoch from pg_catalog.clock_timestamp()
            - (pg_catalog.to_jsonb(s) ->> 'last_idx_scan')::timestamptz
    )::float8 as scanned_seconds,
    -- Who may not see the progress of others still sees the lock under which they build.
    exists (
        select from pg_catalog.pg_stat_progress_create_index as p where p.index_relid = c.oid
    ) or not i.indisvalid and exists (
        select
        from pg_catalog.pg_locks as l
        where l.relation = t.oid
            and l.mode = 'ShareUpdateExclusiveLock'
            and l.granted
            and l.pid <> pg_catalog.pg_backend_pid()
    ) as building
from pg_catalog.pg_index as i
join pg_catalog.pg_class as c on c.oid = i.indexrelid
join pg_catalog.pg_class as t on t.oid = i.indrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_am as am on am.oid = c.relam
left join pg_catalog.pg_inherits as h on h.inhrelid = c.oid
left join pg_catalog.pg_stat_all_indexes as s on s.indexrelid = c.oid
cross join lateral (
    select exists (select from locked as l where l.oid = t.oid) as locked
) as x
cross join lateral (
    select
        pg_catalog.array_agg(pg_catalog.pg_get_indexdef(c.oid, p.at::int4, true) order by p.at)
            filter (where p.at <= i.indnkeyatts) as keys,
        pg_catalog.array_agg(i.indkey[p.at - 1]::int8 order by p.at)
            filter (where p.at <= i.indnkeyatts) as columns,
        pg_catalog.array_agg(i.indclass[p.at - 1]::int8 order by p.at)
            filter (where p.at <= i.indnkeyatts) as classes,
        pg_catalog.array_agg(i.indcollation[p.at - 1]::int8 order by p.at)
            filter (where p.at <= i.indnkeyatts) as collations,
        pg_catalog.array_agg(i.indoption[p.at - 1]::int8 order by p.at)
            filter (where p.at <= i.indnkeyatts) as options,
        coalesce(
            pg_catalog.array_agg(pg_catalog.pg_get_indexdef(c.oid, p.at::int4, true) order by p.at)
                filter (where p.at > i.indnkeyatts),
            '{}'
        ) as included
    from pg_catalog.generate_series(1, i.indnatts) as p (at)
) as k
left join (
    select
        co.conindid,
        pg_catalog.array_agg(co.conname::text order by co.conname)
            filter (where co.contype in ('p', 'u', 'x')) as constraints,
        pg_catalog.count(*) filter (where co.contype = 'f') as references_to
    from pg_catalog.pg_constraint as co
    where co.conindid <> 0
    group by co.conindid
) as o on o.conindid = c.oid
where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    and t.relkind in ('r', 'm', 'p')
    and t.relpersistence <> 't'
order by n.nspname, t.relname, c.relname
