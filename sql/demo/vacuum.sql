-- purpose: what autovacuum did in the meantime: the space of deleted rows is free, but the file system
--   does not get it back
-- needs: PostgreSQL 14; not inside a transaction
-- params: none
-- columns: none
vacuum (analyze) shop.audit_trail, shop.accounts, shop.branches
