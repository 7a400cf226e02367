-- purpose: the role of the shop's own programs, with the password that the session was told
-- needs: PostgreSQL 14; a role that may make roles
-- params: none
-- columns: none
do $$
begin
    execute pg_catalog.format(
        'create role shop_app login password %L', pg_catalog.current_setting('shop.password')
    );
exception
    -- Roles belong to the whole server: another database may have brought this one.
    when duplicate_object or unique_violation then null;
end
$$
