-- purpose: size, rows and vacuums of the shop's tables, as the server counts them
-- needs: PostgreSQL 14
-- params: none
-- columns: name text, bytes int8, live_rows int8, dead_rows int8, vacuums int8
select
    pg_catalog.format('%I.%I', s.schemaname, s.relname) as name,
    pg_catalog.pg_total_relation_size(s.relid) as bytes,
    s.n_live_tup as live_rows,
    s.n_dead_tup as dead_rows,
    s.vacuum_count as vacuums
from pg_catalog.pg_stat_user_tables as s
where s.schemaname = 'shop'
order by s.relname
