-- purpose: the texts of some statements, each once
-- needs: PostgreSQL 14; the extension pg_stat_statements (the tool puts its schema in the place of `public`);
--   texts that we may not see are left out
-- params: $1 queryids int8[]
-- columns: queryid int8, dbid int8, query text
select distinct on (s.queryid, s.dbid)
    s.queryid,
    s.dbid::int8 as dbid,
    s.query
from public.pg_stat_statements(true) as s
where s.queryid = any ($1)
    and s.query is not null
    and s.query <> '<insufficient privilege>'
order by s.queryid, s.dbid
