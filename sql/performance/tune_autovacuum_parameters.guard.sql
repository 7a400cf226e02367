-- purpose: whether a table still has the storage parameters that were seen when the change was proposed
-- needs: PostgreSQL 14
-- params: $1 table_name text, $2 options text[]
-- columns: same bool
select
    exists (
        select
        from pg_catalog.pg_class as c
        where c.oid = pg_catalog.to_regclass($1::text)
            and coalesce(c.reloptions, '{}') = $2::text[]
    ) as same
