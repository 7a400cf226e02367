-- purpose: says which server, database and user a session works on
-- needs: PostgreSQL 14; execute on pg_control_system() (granted to public by default)
-- params: none
-- columns: version_num integer, system_identifier text, database text, database_oid bigint,
--   in_recovery boolean, user text, postmaster_start timestamptz
select
    pg_catalog.current_setting('server_version_num')::integer as version_num,
    (select c.system_identifier::text from pg_catalog.pg_control_system() as c) as system_identifier,
    pg_catalog.current_database()::text as database,
    (select d.oid::bigint from pg_catalog.pg_database as d
      where d.datname = pg_catalog.current_database()) as database_oid,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    current_user::text as user,
    pg_catalog.pg_postmaster_start_time() as postmaster_start
