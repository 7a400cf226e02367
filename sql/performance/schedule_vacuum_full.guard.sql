-- purpose: whether a name still stands for the table that was looked at
-- needs: PostgreSQL 14
-- params: $1 name text, $2 oid int8
-- columns: holds bool
select coalesce(pg_catalog.to_regclass($1::text)::oid::int8 = $2::int8, false) as holds
