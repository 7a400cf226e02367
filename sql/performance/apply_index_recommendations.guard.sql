-- purpose: whether an index is still made as it was when the change was proposed
-- needs: PostgreSQL 14
-- params: $1 index_name text, $2 definition text
-- columns: same bool
select
    coalesce(
        pg_catalog.pg_get_indexdef(pg_catalog.to_regclass($1::text)::oid) = $2::text, false
    ) as same
