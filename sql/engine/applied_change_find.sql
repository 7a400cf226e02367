-- purpose: looks for the key of a change that was carried out
-- needs: PostgreSQL 14; select on lakeops.applied_change
-- params: $1 key text
-- columns: key text, at timestamptz
select c.key, c.at from lakeops.applied_change as c where c.key = $1
