-- purpose: shows a writing session which backend serves it and whether its start-up options arrived
-- needs: PostgreSQL 14
-- params: none
-- columns: pid integer, mark text
select
    pg_catalog.pg_backend_pid() as pid,
    pg_catalog.current_setting('lakeops.session', true) as mark
