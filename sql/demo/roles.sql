-- purpose: who uses the demo's database: the shop's own programs, and an operator who is no superuser
-- needs: PostgreSQL 17 (pg_maintain)
-- params: none
-- columns: none
do $$
begin
    create role shop_app login;
    create role shop_operator login;
    grant pg_monitor, pg_signal_backend, pg_read_all_data, pg_maintain to shop_operator;
exception
    -- Roles belong to the whole server: another database may have brought them.
    when duplicate_object or unique_violation then null;
end
$$
