-- purpose: the tables of a database, whose rows a crash test compares, with their columns; `numbered` are the
--   columns that a sequence fills and those that refer to them, whose values need not come again
-- needs: PostgreSQL 14
-- params: none
-- columns: schema text, name text, columns text[], numbered text[]
with recursive filled as (
    select a.attrelid as relation, a.attnum as place
    from pg_catalog.pg_attribute as a
    where a.attidentity <> '' and not a.attisdropped
    union
    select d.adrelid, d.adnum
    from pg_catalog.pg_attrdef as d
    join pg_catalog.pg_depend as u
        on u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and u.objid = d.oid
    join pg_catalog.pg_class as s
        on u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        and s.oid = u.refobjid
        and s.relkind = 'S'
),
numbered as (
    select f.relation, f.place from filled as f
    union
    select c.conrelid, k.place
    from numbered as n
    join pg_catalog.pg_constraint as c on c.contype = 'f' and c.confrelid = n.relation
    cross join lateral rows from (
        pg_catalog.unnest(c.conkey), pg_catalog.unnest(c.confkey)
    ) as k (place, referred)
    where k.referred = n.place
)
select
    s.nspname::text as schema,
    c.relname::text as name,
    array(
        select a.attname::text from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    ) as columns,
    array(
        select a.attname::text from pg_catalog.pg_attribute as a
        join numbered as n on n.relation = a.attrelid and n.place = a.attnum
        where a.attrelid = c.oid
        order by a.attnum
    ) as numbered
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as s on s.oid = c.relnamespace
where c.relkind in ('r', 'p')
    and not c.relispartition
    and c.relpersistence <> 't'
    and s.nspname !~ '^pg_' and s.nspname <> 'information_schema'
    and not exists (
        select from pg_catalog.pg_depend as e
        where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and e.objid = c.oid
            and e.deptype = 'e'
    )
order by 1, 2
