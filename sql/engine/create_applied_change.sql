-- purpose: makes the table of keys by which a transactional change is carried out exactly once
-- needs: PostgreSQL 14; create on schema lakeops
-- params: none
-- columns: none
create table if not exists lakeops.applied_change (
    key text primary key,
    run_id text not null,
    step text not null,
    at timestamptz not null default pg_catalog.now()
)
