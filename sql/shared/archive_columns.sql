-- purpose: the columns of a table that can be archived, with the place of each in the primary key; no row
--   for what is no table
-- needs: PostgreSQL 14
-- params: $1 table text
-- columns: name text, type_name text, key_position int4, generated bool, kind text
select
    a.attname::text as name,
    pg_catalog.format_type(a.atttypid, a.atttypmod) as type_name,
    pg_catalog.array_position(i.indkey::int2[], a.attnum) as key_position,
    a.attgenerated <> '' as generated,
    c.relkind::text as kind
from pg_catalog.pg_attribute as a
join pg_catalog.pg_class as c on c.oid = a.attrelid
left join pg_catalog.pg_index as i on i.indrelid = c.oid and i.indisprimary
where a.attrelid = pg_catalog.to_regclass($1::text)
    and c.relkind in ('r', 'p')
    and a.attnum > 0
    and not a.attisdropped
order by a.attnum
