-- purpose: says which of the privileges that tools need the user has
-- needs: PostgreSQL 14
-- params: none
-- columns: user text, database text, version text, is_superuser boolean, reads_statistics boolean,
--   ends_sessions boolean, maintains_tables boolean, creates_schemas boolean, has_schema boolean,
--   in_recovery boolean, tables bigint, tables_not_owned bigint, owners text[]
select
    current_user::text as user,
    pg_catalog.current_database()::text as database,
    pg_catalog.current_setting('server_version') as version,
    coalesce(
        (select r.rolsuper from pg_catalog.pg_roles as r where r.rolname = current_user), false
    ) as is_superuser,
    pg_catalog.pg_has_role(current_user, 'pg_monitor', 'member') as reads_statistics,
    pg_catalog.pg_has_role(current_user, 'pg_signal_backend', 'member') as ends_sessions,
    -- PostgreSQL 17 has a role for maintenance; before, only owners may.
    exists (
        select from pg_catalog.pg_roles as r
        where r.rolname = 'pg_maintain'
          and pg_catalog.pg_has_role(current_user, r.oid, 'member')
    ) as maintains_tables,
    pg_catalog.has_database_privilege(
        current_user, pg_catalog.current_database(), 'create'
    ) as creates_schemas,
    exists (
        select from pg_catalog.pg_namespace as n where n.nspname = 'lakeops'
    ) as has_schema,
    pg_catalog.pg_is_in_recovery() as in_recovery,
    owned.tables,
    owned.tables_not_owned,
    owned.owners
from (
    select
        count(*) as tables,
        count(*) filter (where not t.is_ours) as tables_not_owned,
        coalesce(
            array_agg(distinct t.owner order by t.owner) filter (where not t.is_ours),
            '{}'::text[]
        ) as owners
    from (
        select
            pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
            pg_catalog.pg_has_role(current_user, c.relowner, 'usage') as is_ours
        from pg_catalog.pg_class as c
        inner join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'm')
          and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
          and n.nspname not like 'pg\_temp\_%'
    ) as t
) as owned
