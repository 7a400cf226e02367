-- purpose: whether a session is still the one that was seen, and still idle for that long
-- needs: PostgreSQL 14
-- params: $1 pid int8, $2 backend_start text, $3 states text[], $4 seconds float8
-- columns: holds bool
select exists (
    select
    from pg_catalog.pg_stat_activity as a
    where a.pid = $1::int8
        and a.backend_start = $2::text::timestamptz
        and a.state = any ($3::text[])
        and a.state_change <= pg_catalog.clock_timestamp() - $4::float8 * interval '1 second'
) as holds
