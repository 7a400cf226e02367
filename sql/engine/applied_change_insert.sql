-- purpose: claims a change's key before its effect, in the same transaction; a rival waits here
-- needs: PostgreSQL 14; insert and select on lakeops.applied_change
-- params: $1 key text, $2 run_id text, $3 step text
-- columns: key text
insert into lakeops.applied_change (key, run_id, step)
values ($1, $2, $3)
on conflict (key) do nothing
returning key
