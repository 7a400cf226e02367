-- purpose: the facts of server_facts for a user who may not call pg_control_system()
-- needs: PostgreSQL 14
-- params: none
-- columns: version_num integer, system_identifier text, database text, database_oid bigint,
--   in_recovery boolean, user text, postmaster_start timestamptz
select
    pg_catalog.current_setting('server_version_num')::integer as version_num,
    null::text as system_identifier,
    pg_catalog.current_database()::text as database,
    (select d.oid::bigint from pg_catalog.pg_database as d
      where d.datname = pg_catalog.current_database()) as database_oid,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    current_user::text as user,
    pg_catalog.pg_postmaster_start_time() as postmaster_start
