-- purpose: makes the role whose members may read, write, monitor, signal and maintain everything, as the
--   service has it
-- needs: PostgreSQL 17; superuser
-- params: none
-- columns: none
do $$
begin
    if not exists (select from pg_catalog.pg_roles where rolname = 'databricks_superuser') then
        create role databricks_superuser nologin;
    end if;
    grant pg_read_all_data, pg_write_all_data, pg_monitor, pg_signal_backend, pg_maintain,
        pg_checkpoint, pg_create_subscription
        to databricks_superuser;
end
$$
