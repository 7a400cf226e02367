-- purpose: end one idle session and wait until it is gone; another that got its pid is left alone, and
--   so is one that works again
-- needs: PostgreSQL 14; pg_signal_backend, or a role that is a member of the session's
-- params: $1 pid int8, $2 backend_start text, $3 states text[], $4 seconds float8
-- columns: ended bool
select pg_catalog.pg_terminate_backend(a.pid, 5000) as ended
from pg_catalog.pg_stat_activity as a
where a.pid = $1::int8
    and a.backend_start = $2::text::timestamptz
    and a.state = any ($3::text[])
    and a.state_change <= pg_catalog.clock_timestamp() - $4::float8 * interval '1 second'
