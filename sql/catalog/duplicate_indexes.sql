-- purpose: pairs of indexes that are the same in everything: keys, expressions, operator classes, collations,
--   order, predicate, method, included columns; redundant prefixes are the tool detect_duplicate_indexes' matter
-- needs: PostgreSQL 14
-- params: none
-- columns: schema_name text, table_name text, index_a text, index_b text, definition_a text,
--   definition_b text, size_a_bytes int8, size_b_bytes int8
select
    n.nspname::text as schema_name,
    t.relname::text as table_name,
    ca.relname::text as index_a,
    cb.relname::text as index_b,
    pg_catalog.pg_get_indexdef(a.indexrelid) as definition_a,
    pg_catalog.pg_get_indexdef(b.indexrelid) as definition_b,
    pg_catalog.pg_relation_size(a.indexrelid) as size_a_bytes,
    pg_catalog.pg_relation_size(b.indexrelid) as size_b_bytes
from pg_catalog.pg_index as a
join pg_catalog.pg_index as b on b.indrelid = a.indrelid and b.indexrelid > a.indexrelid
join pg_catalog.pg_class as ca on ca.oid = a.indexrelid
join pg_catalog.pg_class as cb on cb.oid = b.indexrelid and cb.relam = ca.relam
join pg_catalog.pg_class as t on t.oid = a.indrelid
join pg_catalog.pg_namespace as n on n.oid = t.relnamespace
where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    and a.indkey::text = b.indkey::text
    and a.indclass::text = b.indclass::text
    and a.indcollation::text = b.indcollation::text
    and a.indoption::text = b.indoption::text
    and a.indnkeyatts = b.indnkeyatts
    -- Every expression has the key 0.
    and pg_catalog.pg_get_expr(a.indexprs, a.indrelid)
        is not distinct from pg_catalog.pg_get_expr(b.indexprs, b.indrelid)
    and pg_catalog.pg_get_expr(a.indpred, a.indrelid)
        is not distinct from pg_catalog.pg_get_expr(b.indpred, b.indrelid)
    and a.indisvalid
    and b.indisvalid
order by 1, 2, 3, 4
