-- purpose: every foreign key, once for a partitioned table, with what an index on its columns would save
-- needs: PostgreSQL 14; from 18 on also foreign keys that are not enforced, marked as such
-- params: none
-- columns: constraint_name text, schema_name text, relation_name text, table_name text,
--   is_partitioned bool, referenced_name text, columns text[], collations int8[], leaves int8[],
--   table_oid int8, rows float8, size_bytes int8, parent_changes int8, enforced bool, cascades bool
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
    co.conname::text as constraint_name,
    n.nspname::text as schema_name,
    c.relname::text as relation_name,
    pg_catalog.format('%I.%I', n.nspname, c.relname) as table_name,
    c.relkind = 'p' as is_partitioned,
    pg_catalog.format('%I.%I', fn.nspname, f.relname) as referenced_name,
    k.columns,
    k.collations,
    l.leaves,
    c.oid::int8 as table_oid,
    l.rows,
    l.size_bytes,
    l.parent_changes,
    coalesce((pg_catalog.to_jsonb(co) ->> 'conenforced')::bool, true) as enforced,
    co.confdeltype in ('c', 'n', 'd') or co.confupdtype in ('c', 'n', 'd') as cascades
from pg_catalog.pg_constraint as co
join pg_catalog.pg_class as c on c.oid = co.conrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_class as f on f.oid = co.confrelid
join pg_catalog.pg_namespace as fn on fn.oid = f.relnamespace
cross join lateral (
    select
        pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) order by u.at) as columns,
        pg_catalog.array_agg(a.attcollation::int8 order by u.at) as collations
    from pg_catalog.unnest(co.conkey) with ordinality as u (attnum, at)
    join pg_catalog.pg_attribute as a on a.attrelid = co.conrelid and a.attnum = u.attnum
) as k
cross join lateral (
    select
        pg_catalog.array_agg(p.oid::int8 order by p.oid) as leaves,
        pg_catalog.sum(greatest(p.reltuples, s.n_live_tup, 0))::float8 as rows,
        pg_catalog.sum(
            case
                when exists (select from locked where locked.oid = p.oid)
                    then p.relpages::int8 * pg_catalog.current_setting('block_size')::int8
                else pg_catalog.pg_relation_size(p.oid)
            end
        )::int8 as size_bytes,
        (
            select coalesce(pg_catalog.sum(g.n_tup_del + g.n_tup_upd), 0)::int8
            from pg_catalog.pg_stat_all_tables as g
            where g.relid = f.oid
                or g.relid in (
                    select t.relid::oid
                    from pg_catalog.pg_partition_tree(f.oid) as t
                    where f.relkind = 'p' and t.isleaf
                )
        ) as parent_changes
    from pg_catalog.pg_class as p
    left join pg_catalog.pg_stat_all_tables as s on s.relid = p.oid
    where p.oid = c.oid and c.relkind = 'r'
        or c.relkind = 'p' and p.oid in (
            select t.relid::oid
            from pg_catalog.pg_partition_tree(c.oid) as t
            where t.isleaf and t.relid::oid <> c.oid
        )
) as l
where co.contype = 'f'
    -- A partition's copy of its parent's key is not a key of its own.
    and co.conparentid = 0
    and n.nspname not in ('pg_catalog', 'information_schema')
    and c.relpersistence <> 't'
order by n.nspname, c.relname, co.conname
