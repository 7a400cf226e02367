-- purpose: the tables with most dead rows, and when VACUUM last came by
-- needs: PostgreSQL 14
-- params: $1 most int8
-- columns: schema_name text, table_name text, n_live_tup int8, n_dead_tup int8, dead_ratio float8,
--   last_vacuum timestamptz, last_autovacuum timestamptz
select
    s.schemaname::text as schema_name,
    s.relname::text as table_name,
    s.n_live_tup,
    s.n_dead_tup,
    s.n_dead_tup::float8 / nullif(s.n_live_tup + s.n_dead_tup, 0) as dead_ratio,
    s.last_vacuum,
    s.last_autovacuum
from pg_catalog.pg_stat_user_tables as s
where s.n_dead_tup > 0
order by s.n_dead_tup desc, 1, 2
limit $1
