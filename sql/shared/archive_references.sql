-- purpose: foreign keys of other tables that point at a table, with the columns on both sides
-- needs: PostgreSQL 14
-- params: $1 table text
-- columns: constraint_name text, child text, child_columns text[], parent_columns text[]
select
    k.conname::text as constraint_name,
    pg_catalog.format('%I.%I', n.nspname, c.relname) as child,
    array(
        select a.attname::text
        from pg_catalog.unnest(k.conkey) with ordinality as u (num, place)
        join pg_catalog.pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.num
        order by u.place
    ) as child_columns,
    array(
        select a.attname::text
        from pg_catalog.unnest(k.confkey) with ordinality as u (num, place)
        join pg_catalog.pg_attribute as a on a.attrelid = k.confrelid and a.attnum = u.num
        order by u.place
    ) as parent_columns
from pg_catalog.pg_constraint as k
join pg_catalog.pg_class as c on c.oid = k.conrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where k.contype = 'f'
    and k.confrelid = pg_catalog.to_regclass($1::text)
    and k.conparentid = 0
order by 2, 1
