-- purpose: tells the session which password the shop's own programs get
-- needs: PostgreSQL 14
-- params: $1 password text
-- columns: value text
select pg_catalog.set_config('shop.password', $1::text, false) as value
