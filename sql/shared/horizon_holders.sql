-- purpose: what keeps VACUUM in this database from removing dead rows, the oldest first; a transaction
--   that writes in another database only does when a snapshot here was taken while it ran
-- needs: PostgreSQL 14; without pg_read_all_stats it is not known how long a session holds on
-- params: none
-- columns: kind text, name text, pid int4, held_seconds float8, xid_age int8, catalog_only bool,
--   user_name text, application text, state text
select h.*
from (
    select
        'session' as kind,
        a.pid::text as name,
        a.pid,
        extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as held_seconds,
        greatest(pg_catalog.age(a.backend_xmin), pg_catalog.age(a.backend_xid))::int8 as xid_age,
        false as catalog_only,
        a.usename::text as user_name,
        a.application_name as application,
        a.state
    from pg_catalog.pg_stat_activity as a
    where a.datname = pg_catalog.current_database()
        and a.backend_type is distinct from 'walsender'
        and a.pid <> pg_catalog.pg_backend_pid()
        -- VACUUM itself holds nobody up.
        and not exists (
            select from pg_catalog.pg_stat_progress_vacuum as p where p.pid = a.pid
        )
    union all
    select
        'session elsewhere',
        a.pid::text,
        a.pid,
        extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8,
        pg_catalog.age(a.backend_xid)::int8,
        false,
        a.usename::text,
        a.application_name,
        a.state
    from pg_catalog.pg_stat_activity as a
    where a.datname <> pg_catalog.current_database()
        and a.backend_xid is not null
        and a.backend_type is distinct from 'walsender'
    union all
    select
        'prepared transaction elsewhere',
        p.gid,
        null,
        extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8,
        pg_catalog.age(p.transaction)::int8,
        false,
        p.owner::text,
        null,
        null
    from pg_catalog.pg_prepared_xacts as p
    where p.database <> pg_catalog.current_database()
    union all
    select
        'prepared transaction',
        p.gid,
        null,
        extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8,
        pg_catalog.age(p.transaction)::int8,
        false,
        p.owner::text,
        null,
        null
    from pg_catalog.pg_prepared_xacts as p
    where p.database = pg_catalog.current_database()
    union all
    select
        'replication slot',
        s.slot_name::text,
        s.active_pid,
        null,
        greatest(pg_catalog.age(s.xmin), pg_catalog.age(s.catalog_xmin))::int8,
        s.xmin is null,
        null,
        s.plugin::text,
        case when s.active then 'active' else 'inactive' end
    from pg_catalog.pg_replication_slots as s
    union all
    select
        'standby',
        coalesce(pg_catalog.host(r.client_addr), r.application_name),
        r.pid,
        null,
        pg_catalog.age(r.backend_xmin)::int8,
        false,
        r.usename::text,
        r.application_name,
        r.state
    from pg_catalog.pg_stat_replication as r
) as h
where h.xid_age > 0
order by h.xid_age desc, h.kind, h.name
