-- purpose: what maintenance of one table changes, for before and after
-- needs: PostgreSQL 14
-- params: $1 name text
-- columns: live_rows int8, dead_rows int8, heap_bytes int8, total_bytes int8, xid_age int8
select
    s.n_live_tup as live_rows,
    s.n_dead_tup as dead_rows,
    pg_catalog.pg_relation_size(c.oid) as heap_bytes,
    pg_catalog.pg_total_relation_size(c.oid) as total_bytes,
    pg_catalog.age(c.relfrozenxid)::int8 as xid_age
from pg_catalog.pg_class as c
join pg_catalog.pg_stat_all_tables as s on s.relid = c.oid
where c.oid = pg_catalog.to_regclass($1::text)
