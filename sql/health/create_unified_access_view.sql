-- purpose: what a view of hot and cold rows would be made of: the foreign table that shows the copies, and
--   what bears the name of the view already
-- needs: PostgreSQL 14
-- params: $1 foreign_table text, $2 view text
-- columns: foreign_kind text, foreign_columns text[], view_kind text, view_definition text, view_comment text
select
    (
        select c.relkind::text
        from pg_catalog.pg_class as c
        where c.oid = pg_catalog.to_regclass($1::text)
    ) as foreign_kind,
    array(
        select a.attname::text
        from pg_catalog.pg_attribute as a
        where a.attrelid = pg_catalog.to_regclass($1::text) and a.attnum > 0 and not a.attisdropped
        order by a.attnum
    ) as foreign_columns,
    (
        select c.relkind::text
        from pg_catalog.pg_class as c
        where c.oid = pg_catalog.to_regclass($2::text)
    ) as view_kind,
    (
        select pg_catalog.pg_get_viewdef(c.oid)
        from pg_catalog.pg_class as c
        where c.oid = pg_catalog.to_regclass($2::text) and c.relkind = 'v'
    ) as view_definition,
    pg_catalog.obj_description(pg_catalog.to_regclass($2::text), 'pg_class') as view_comment
