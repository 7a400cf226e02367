-- purpose: lets free space be measured page by page, where the server brings the extension along
-- needs: PostgreSQL 14
-- params: none
-- columns: none
do $$
begin
    create extension if not exists pgstattuple;
exception
    when feature_not_supported or undefined_file then null;
end
$$
