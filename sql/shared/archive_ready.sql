-- purpose: whether the table that says which archived rows are visible is there, and whether we may use it
-- needs: PostgreSQL 14
-- params: none
-- columns: found bool, ready bool
select
    pg_catalog.to_regclass('lakeops.archived_batch') is not null as found,
    coalesce(
        pg_catalog.has_table_privilege(
            pg_catalog.to_regclass('lakeops.archived_batch'), 'SELECT, INSERT, UPDATE'
        ),
        false
    ) as ready
