-- purpose: says which of the extensions that tools use are there
-- needs: PostgreSQL 14
-- params: none
-- columns: name text, available text, installed text
select
    wanted.name,
    e.default_version as available,
    e.installed_version as installed
from (values ('pg_stat_statements'), ('pgstattuple')) as wanted (name)
left join pg_catalog.pg_available_extensions as e on e.name = wanted.name
order by wanted.name
