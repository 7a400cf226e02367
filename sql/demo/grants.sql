-- purpose: what the shop's own programs may do
-- needs: PostgreSQL 14
-- params: none
-- columns: none
grant select, insert, update, delete on all tables in schema shop to shop_app
