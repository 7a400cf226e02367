-- purpose: how many rows of each table were written since the counters began, and whether we may change
--   its storage parameters
-- needs: PostgreSQL 14
-- params: none
-- columns: oid int8, may_alter bool, inserted int8, updated int8, deleted int8, reset_at timestamptz
select
    c.oid::int8 as oid,
    pg_catalog.pg_has_role(c.relowner, 'USAGE') as may_alter,
    s.n_tup_ins as inserted,
    s.n_tup_upd as updated,
    s.n_tup_del as deleted,
    d.stats_reset as reset_at
from pg_catalog.pg_class as c
join pg_catalog.pg_stat_user_tables as s on s.relid = c.oid
join pg_catalog.pg_stat_database as d on d.datname = pg_catalog.current_database()
where c.relkind in ('r', 'm') and c.relpersistence <> 't'
order by c.oid
