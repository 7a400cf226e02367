-- purpose: whether a table is still there and nobody vacuums it at the moment
-- needs: PostgreSQL 14
-- params: $1 name text
-- columns: holds bool
select
    pg_catalog.to_regclass($1::text) is not null
    and not exists (
        select
        from pg_catalog.pg_stat_progress_vacuum as p
        where p.relid = pg_catalog.to_regclass($1::text)
            and p.datname = pg_catalog.current_database()
    ) as holds
