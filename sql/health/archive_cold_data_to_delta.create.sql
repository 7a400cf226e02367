-- purpose: makes the table that says which archived rows are visible: a row is written by the transaction
--   that deletes the rows it is about
-- needs: PostgreSQL 14; create on schema lakeops
-- params: none
-- columns: none
create table if not exists lakeops.archived_batch (
    batch_id text primary key,
    source_table text not null,
    rows bigint not null,
    kept_hot text[] not null,
    column_name text not null,
    cut_off timestamptz not null,
    archived_at timestamptz not null default pg_catalog.now(),
    restored_at timestamptz
)
