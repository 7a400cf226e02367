-- purpose: what VACUUM and autovacuum go by, for each table and materialized view; also what a
--   statistical estimate of bloat needs
-- needs: PostgreSQL 14; null names mean all outside the system schemas; MAINTAIN exists from 17 on;
--   width is null without ANALYZE or SELECT
-- params: $1 names text[]
-- columns: oid int8, schema_name text, relation_name text, table_name text, owner text,
--   may_vacuum bool, may_read bool, locked bool, heap_bytes int8, total_bytes int8,
--   block_size int4, relpages int8, reltuples float8, counted bool, live_rows int8,
--   dead_rows int8, changed_rows int8, inserted_rows int8, options text[], xid_age int8,
--   multixact_age int8, vacuumed_seconds float8, analyzed_seconds float8, vacuum_running bool,
--   columns int4, columns_known int4, width float8, has_nulls bool, has_names bool
with wanted as (
    select pg_catalog.to_regclass(t.name)::oid as oid
    from pg_catalog.unnest($1::text[]) as t (name)
),
locked as (
    -- Asking for the size of a table waits for whoever has it, or an index of it, for himself alone.
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
    n.nspname::text as schema_name,
    c.relname::text as relation_name,
    pg_catalog.format('%I.%I', n.nspname, c.relname) as table_name,
    pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE')
        or case
            when pg_catalog.current_setting('server_version_num')::int4 >= 170000
                then pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')
            else false
        end as may_vacuum,
    pg_catalog.has_table_privilege(c.oid, 'SELECT') as may_read,
    x.locked,
    case
        when x.locked then c.relpages::int8 * x.block_size
        else pg_catalog.pg_relation_size(c.oid)
    end as heap_bytes,
    case
        when x.locked then c.relpages::int8 * x.block_size
        else pg_catalog.pg_total_relation_size(c.oid)
    end as total_bytes,
    x.block_size,
    c.relpages::int8 as relpages,
    c.reltuples::float8 as reltuples,
    s.n_tup_ins + s.n_tup_upd + s.n_tup_del > 0
        or coalesce(s.last_vacuum, s.last_autovacuum, s.last_analyze, s.last_autoanalyze) is not null
        as counted,
    s.n_live_tup as live_rows,
    s.n_dead_tup as dead_rows,
    s.n_mod_since_analyze as changed_rows,
    s.n_ins_since_vacuum as inserted_rows,
    coalesce(c.reloptions, '{}') as options,
    greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.age(t.relfrozenxid))::int8 as xid_age,
    greatest(pg_catalog.mxid_age(c.relminmxid), pg_catalog.mxid_age(t.relminmxid))::int8
        as multixact_age,
    extract(
        epoch from pg_catalog.clock_timestamp() - greatest(s.last_vacuum, s.last_autovacuum)
    )::float8 as vacuumed_seconds,
    extract(
        epoch from pg_catalog.clock_timestamp() - greatest(s.last_analyze, s.last_autoanalyze)
    )::float8 as analyzed_seconds,
    exists (
        select
        from pg_catalog.pg_stat_progress_vacuum as p
        where p.relid in (c.oid, t.oid)
            and p.datname = pg_catalog.current_database()
    ) as vacuum_running,
    a.columns::int4 as columns,
    w.columns_known::int4 as columns_known,
    w.width,
    coalesce(w.has_nulls, false) as has_nulls,
    a.has_names
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_stat_all_tables as s on s.relid = c.oid
left join pg_catalog.pg_class as t on t.oid = c.reltoastrelid
cross join lateral (
    select
        exists (select from locked as l where l.oid in (c.oid, t.oid)) as locked,
        pg_catalog.current_setting('block_size')::int4 as block_size
) as x
cross join lateral (
    select
        pg_catalog.count(*) as columns,
        coalesce(pg_catalog.bool_or(a.atttypid = 'pg_catalog.name'::regtype), false) as has_names
    from pg_catalog.pg_attribute as a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
) as a
cross join lateral (
    select
        pg_catalog.count(*) as columns_known,
        pg_catalog.sum((1 - p.null_frac) * p.avg_width)::float8 as width,
        pg_catalog.bool_or(p.null_frac > 0) as has_nulls
    from pg_catalog.pg_stats as p
    where p.schemaname = n.nspname and p.tablename = c.relname and not p.inherited
) as w
where c.relkind in ('r', 'm')
    and c.relpersistence <> 't'
    and case
        when $1::text[] is null then n.nspname not in ('pg_catalog', 'information_schema')
        else c.oid in (select wanted.oid from wanted)
    end
order by n.nspname, c.relname
