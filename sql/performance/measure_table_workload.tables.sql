-- purpose: whether rows of some tables can be deleted and inserted again, and by which columns
-- needs: PostgreSQL 14
-- params: $1 schemas text[], $2 relations text[]
-- columns: schema_name text, relation_name text, kind text, columns text[], acts bool
select
    n.nspname::text as schema_name,
    c.relname::text as relation_name,
    c.relkind::text as kind,
    (
        select pg_catalog.array_agg(a.attname::text order by a.attnum)
        from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid
            and a.attnum > 0
            and not a.attisdropped
            and a.attgenerated = ''
    ) as columns,
    -- What a trigger or a rule does may not end with the transaction; a key that others refer to with
    -- an action of their own takes their rows along.
    exists (
        select from pg_catalog.pg_trigger as g where g.tgrelid = c.oid and not g.tgisinternal
    ) or exists (
        select from pg_catalog.pg_rewrite as r where r.ev_class = c.oid
    ) or exists (
        select
        from pg_catalog.pg_constraint as k
        where k.confrelid = c.oid and k.contype = 'f' and k.confdeltype <> 'a'
    ) as acts
from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))
    as w (schema_name, relation_name)
join pg_catalog.pg_namespace as n on n.nspname::text = w.schema_name
join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname::text = w.relation_name
order by 1, 2
