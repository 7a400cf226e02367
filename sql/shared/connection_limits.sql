-- purpose: how many connections the server takes, and how many of them it keeps back
-- needs: PostgreSQL 14; `reserved_connections` exists from 16 on
-- params: none
-- columns: max_connections int4, superuser_reserved int4, reserved int4
select
    pg_catalog.current_setting('max_connections')::int4 as max_connections,
    pg_catalog.current_setting('superuser_reserved_connections')::int4 as superuser_reserved,
    coalesce(pg_catalog.current_setting('reserved_connections', true)::int4, 0) as reserved
