-- purpose: values that are there in the columns of some tables, as the planner's statistics have them
-- needs: PostgreSQL 14; no row for columns without ANALYZE or SELECT
-- params: $1 schemas text[], $2 relations text[]
-- columns: schema_name text, relation_name text, column_name text, rows float8, common text[],
--   frequencies float8[], bounds text[]
select
    s.schemaname::text as schema_name,
    s.tablename::text as relation_name,
    s.attname::text as column_name,
    c.reltuples::float8 as rows,
    s.most_common_vals::text::text[] as common,
    s.most_common_freqs::float8[] as frequencies,
    s.histogram_bounds::text::text[] as bounds
from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]))
    as w (schema_name, relation_name)
join pg_catalog.pg_namespace as n on n.nspname::text = w.schema_name
join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname::text = w.relation_name
join pg_catalog.pg_stats as s
    on s.schemaname = n.nspname
    and s.tablename = c.relname
    and s.inherited = (c.relkind = 'p')
order by 1, 2, 3
