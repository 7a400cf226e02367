-- purpose: the oldest tables of this database, TOAST included, system catalogs and temporary ones too:
--   any of them holds the database back
-- needs: PostgreSQL 14; MAINTAIN exists from 17 on
-- params: $1 most int8
-- columns: table_name text, is_system bool, is_temporary bool, owner text, may_vacuum bool, xid_age int8,
--   multixact_age int8, in_toast bool, size_bytes int8, options text[], vacuum_running bool
select
    pg_catalog.format('%I.%I', n.nspname, c.relname) as table_name,
    n.nspname = 'pg_catalog' or n.nspname = 'information_schema' as is_system,
    c.relpersistence = 't' as is_temporary,
    pg_catalog.pg_get_userbyid(c.relowner)::text as owner,
    pg_catalog.pg_has_role(c.relowner, 'USAGE')
        or case
            when pg_catalog.current_setting('server_version_num')::int4 >= 170000
                then pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')
            else false
        end as may_vacuum,
    a.xid_age,
    a.multixact_age,
    coalesce(pg_catalog.age(t.relfrozenxid) > pg_catalog.age(c.relfrozenxid), false) as in_toast,
    -- Sizes as VACUUM saw them: asking for the real ones would wait for locks.
    (c.relpages::int8 + coalesce(t.relpages, 0)::int8)
        * pg_catalog.current_setting('block_size')::int8 as size_bytes,
    coalesce(c.reloptions, '{}') as options,
    exists (
        select
        from pg_catalog.pg_stat_progress_vacuum as p
        where p.relid in (c.oid, t.oid)
            and p.datname = pg_catalog.current_database()
    ) as vacuum_running
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
left join pg_catalog.pg_class as t on t.oid = c.reltoastrelid
cross join lateral (
    select
        greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.age(t.relfrozenxid))::int8 as xid_age,
        greatest(pg_catalog.mxid_age(c.relminmxid), pg_catalog.mxid_age(t.relminmxid))::int8
            as multixact_age
) as a
where c.relkind in ('r', 'm')
order by greatest(a.xid_age, a.multixact_age) desc, n.nspname, c.relname
limit $1
