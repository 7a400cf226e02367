-- purpose: how many sessions have been waiting for a lock for so long
-- needs: PostgreSQL 14
-- params: $1 seconds float8
-- columns: blocked int8
select pg_catalog.count(*) as blocked
from pg_catalog.pg_stat_activity as a
where a.datname = pg_catalog.current_database()
    and a.state = 'active'
    and a.query_start < pg_catalog.clock_timestamp() - $1::float8 * interval '1 second'
    and pg_catalog.cardinality(pg_catalog.pg_blocking_pids(a.pid)) > 0
