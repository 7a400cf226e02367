-- purpose: what a retention job did: most rows are gone, but not a single page is empty
-- needs: PostgreSQL 14
-- params: none
-- columns: none
delete from shop.audit_trail
where id % 8 <> 0
