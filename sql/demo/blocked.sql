-- purpose: how many sessions wait for a lock
-- needs: PostgreSQL 14
-- params: none
-- columns: blocked int8
select pg_catalog.count(*) as blocked
from pg_catalog.pg_stat_activity as a
where a.datname = pg_catalog.current_database()
    and pg_catalog.cardinality(pg_catalog.pg_blocking_pids(a.pid)) > 0
