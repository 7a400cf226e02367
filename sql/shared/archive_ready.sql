-- purpose: whether the table that says which archived rows are visible is there, and we may use it
-- needs: PostgreSQL 14
-- params: none
-- columns: ready bool
select coalesce(
    pg_catalog.has_table_privilege(
        pg_catalog.to_regclass('lakeops.archived_batch'), 'SELECT, INSERT, UPDATE'
    ),
    false
) as ready
