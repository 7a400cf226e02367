-- purpose: the size of tables that are named as in a statement; null where there is none of that name
-- needs: PostgreSQL 14
-- params: $1 tables text[]
-- columns: name text, bytes bigint
select t.name,
       pg_catalog.pg_total_relation_size(pg_catalog.to_regclass(t.name)) as bytes
  from pg_catalog.unnest($1::text[]) as t (name)
