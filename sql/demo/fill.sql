-- purpose: branches and accounts, in the manner of pgbench
-- needs: PostgreSQL 14
-- params: none
-- columns: none
with branches as (
    insert into shop.branches (id, balance)
    select b.id, 0
    from pg_catalog.generate_series(1, 4) as b (id)
)
insert into shop.accounts (id, balance, filler)
select a.id, 0, pg_catalog.repeat('x', 84)
from pg_catalog.generate_series(1, 20000) as a (id)
