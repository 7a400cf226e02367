-- purpose: a table that has grown large
-- needs: PostgreSQL 14
-- params: none
-- columns: none
insert into shop.audit_trail (id, actor, detail)
select
    i,
    'user ' || i % 500,
    pg_catalog.rpad(pg_catalog.md5(i::text), 160, '.')
from pg_catalog.generate_series(1, 160000) as i
