-- purpose: makes the schema for what the engine itself keeps on a target
-- needs: PostgreSQL 14; create on the database
-- params: none
-- columns: none
create schema if not exists lakeops
