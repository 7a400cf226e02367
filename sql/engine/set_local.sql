-- purpose: sets a setting to the end of the transaction
-- needs: PostgreSQL 14
-- params: $1 name text, $2 value text
-- columns: value text
select pg_catalog.set_config($1, $2, true) as value
