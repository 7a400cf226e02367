-- purpose: what autovacuum did after it: the space is free, but the file system does not get it back
-- needs: PostgreSQL 14; not inside a transaction
-- params: none
-- columns: none
vacuum (analyze) shop.audit_trail
