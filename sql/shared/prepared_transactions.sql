-- purpose: prepared transactions, and which processes wait for a lock that one holds
-- needs: PostgreSQL 14
-- params: none
-- columns: gid text, user_name text, database_name text, prepared_seconds float8, waiters int4[]
with held as (
    -- Its locks have no process; they are those of the virtual transaction that holds its own xid.
    select x.transactionid as xid, h.*
    from pg_catalog.pg_locks as x
    join pg_catalog.pg_locks as h
        on h.pid is null and h.granted and h.virtualtransaction = x.virtualtransaction
    where x.pid is null and x.granted and x.locktype = 'transactionid'
)
select
    p.gid,
    p.owner::text as user_name,
    p.database::text as database_name,
    extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8 as prepared_seconds,
    coalesce(pg_catalog.array_agg(distinct w.pid) filter (where w.pid is not null), '{}') as waiters
from pg_catalog.pg_prepared_xacts as p
left join held as h on h.xid = p.transaction
left join pg_catalog.pg_locks as w
    on not w.granted
    and w.locktype = h.locktype
    and w.database is not distinct from h.database
    and w.relation is not distinct from h.relation
    and w.page is not distinct from h.page
    and w.tuple is not distinct from h.tuple
    and w.virtualxid is not distinct from h.virtualxid
    and w.transactionid is not distinct from h.transactionid
    and w.classid is not distinct from h.classid
    and w.objid is not distinct from h.objid
    and w.objsubid is not distinct from h.objsubid
    and 0 = any (pg_catalog.pg_blocking_pids(w.pid))
group by p.gid, p.owner, p.database, p.prepared
order by p.gid
