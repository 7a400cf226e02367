-- purpose: one payment, the transaction that the shop's load consists of
-- needs: PostgreSQL 14
-- params: $1 account int8, $2 branch int4, $3 amount int8
-- columns: none
with account as (
    update shop.accounts
    set balance = balance + $3::int8
    where id = $1::int8
    returning id
),
entry as (
    insert into shop.ledger (account_id, branch_id, amount)
    select account.id, $2::int4, $3::int8
    from account
)
update shop.branches
set balance = balance + $3::int8
where id = $2::int4
