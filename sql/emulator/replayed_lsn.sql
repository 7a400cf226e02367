-- purpose: how far a copy that follows its branch has come
-- needs: PostgreSQL 14; a standby
-- params: none
-- columns: lsn text
select pg_catalog.pg_last_wal_replay_lsn()::text as lsn
