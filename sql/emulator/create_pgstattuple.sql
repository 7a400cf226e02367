-- purpose: makes the extension that measures bloat page by page, where the server brings it along; on the
--   service its users can make it by themselves
-- needs: PostgreSQL 14; superuser
-- params: none
-- columns: none
do $$
begin
    if exists (select from pg_catalog.pg_available_extensions as a where a.name = 'pgstattuple') then
        create extension if not exists pgstattuple;
    end if;
end
$$
