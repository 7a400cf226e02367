-- purpose: what the planner knows of the columns of some tables
-- needs: PostgreSQL 14; statistics are null without ANALYZE or SELECT
-- params: $1 oids int8[]
-- columns: table_oid int8, column_name text, written text, orderable bool, null_share float8,
--   width float8, distinct_values float8, common text[], frequencies float8[]
select
    a.attrelid::int8 as table_oid,
    a.attname::text as column_name,
    pg_catalog.quote_ident(a.attname) as written,
    exists (
        select
        from pg_catalog.pg_opclass as o
        join pg_catalog.pg_am as m on m.oid = o.opcmethod
        where m.amname = 'btree'
            and o.opcdefault
            and o.opcintype = case
                when b.typtype = 'e' then 'pg_catalog.anyenum'::pg_catalog.regtype::oid
                when b.typtype = 'r' then 'pg_catalog.anyrange'::pg_catalog.regtype::oid
                when b.typcategory = 'A' then 'pg_catalog.anyarray'::pg_catalog.regtype::oid
                when b.oid = 'pg_catalog.varchar'::pg_catalog.regtype
                    then 'pg_catalog.text'::pg_catalog.regtype::oid
                else b.oid
            end
    ) as orderable,
    s.null_frac::float8 as null_share,
    s.avg_width::float8 as width,
    s.n_distinct::float8 as distinct_values,
    s.most_common_vals::text::text[] as common,
    s.most_common_freqs::float8[] as frequencies
from pg_catalog.pg_attribute as a
join pg_catalog.pg_class as c on c.oid = a.attrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_type as t on t.oid = a.atttypid
join pg_catalog.pg_type as b on b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
left join pg_catalog.pg_stats as s
    on s.schemaname = n.nspname
    and s.tablename = c.relname
    and s.attname = a.attname
    and not s.inherited
where a.attrelid::int8 = any($1::int8[])
    and a.attnum > 0
    and not a.attisdropped
order by a.attrelid, a.attnum
