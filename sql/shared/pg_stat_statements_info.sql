-- purpose: how many statements pg_stat_statements knows, may know and had to forget, and since when it counts
-- needs: PostgreSQL 14; the extension pg_stat_statements (the tool puts its schema in the place of `public`)
-- params: none
-- columns: at timestamptz, dealloc int8, stats_reset timestamptz, postmaster_start timestamptz,
--   statements int8, hidden int8, max_statements int8
select
    pg_catalog.clock_timestamp() as at,
    i.dealloc,
    i.stats_reset,
    pg_catalog.pg_postmaster_start_time() as postmaster_start,
    s.statements,
    s.hidden,
    pg_catalog.current_setting('pg_stat_statements.max')::int8 as max_statements
from public.pg_stat_statements_info as i
cross join (
    select
        pg_catalog.count(*) as statements,
        pg_catalog.count(*) filter (where p.queryid is null) as hidden
    from public.pg_stat_statements(false) as p
) as s
