-- purpose: how much of the space for members of multixacts is used: it can run out long before the
--   multixacts do
-- needs: PostgreSQL 14; files is null without the right to call pg_ls_dir
-- params: none
-- columns: files int8
select
    case
        when pg_catalog.has_function_privilege('pg_catalog.pg_ls_dir(text)', 'EXECUTE')
            then (select pg_catalog.count(*) from pg_catalog.pg_ls_dir('pg_multixact/members'))
    end as files
