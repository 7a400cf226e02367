-- purpose: what a program did before it forgot its transaction
-- needs: PostgreSQL 14; inside a transaction
-- params: none
-- columns: none
update shop.branches
set balance = balance + 0
where id = 1
