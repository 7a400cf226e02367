-- purpose: the tables that are large enough for an index to matter: size, how they are read and written
-- needs: PostgreSQL 14
-- params: $1 least_rows float8
-- columns: oid int8, schema_name text, relation_name text, table_name text, rows float8, pages int8,
--   is_partition bool, sequential_scans int8, inserted int8, updated int8, deleted int8, hot_updated int8
select
    c.oid::int8 as oid,
    n.nspname::text as schema_name,
    c.relname::text as relation_name,
    pg_catalog.format('%I.%I', n.nspname, c.relname) as table_name,
    c.reltuples::float8 as rows,
    c.relpages::int8 as pages,
    c.relispartition as is_partition,
    coalesce(s.seq_scan, 0) as sequential_scans,
    s.n_tup_ins as inserted,
    s.n_tup_upd as updated,
    s.n_tup_del as deleted,
    s.n_tup_hot_upd as hot_updated
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_stat_user_tables as s on s.relid = c.oid
where c.relkind in ('r', 'm')
    and c.relpersistence <> 't'
    and c.reltuples >= $1::float8
order by c.reltuples desc, c.oid
