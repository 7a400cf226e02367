-- purpose: makes the server count the session's changes now, and not within the next second
-- needs: PostgreSQL 15
-- params: none
-- columns: pg_stat_force_next_flush void
select pg_catalog.pg_stat_force_next_flush()
