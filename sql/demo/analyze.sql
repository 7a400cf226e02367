-- purpose: fresh statistics, so that sizes can be estimated
-- needs: PostgreSQL 14
-- params: none
-- columns: none
analyze
