-- purpose: counters whose growth between two samples gives rates; blocks are those of ordinary reads
--   and writes of all databases
-- needs: PostgreSQL 16 only
-- params: none
-- columns: at timestamptz, epoch text, commits int8, rollbacks int8, block_hits int8,
--   block_reads int8, deadlocks int8, temp_files int8, temp_bytes int8, wal_bytes int8,
--   wal_buffers_full int8, checkpoints_timed int8, checkpoints_requested int8,
--   checkpoint_write_ms int8, checkpoint_sync_ms int8, checkpoint_buffers int8,
--   backend_writes int8, backend_fsyncs int8
select
    pg_catalog.clock_timestamp() as at,
    -- Counters start again at zero when one of these changes.
    pg_catalog.pg_postmaster_start_time()::text || ' ' || coalesce(d.stats_reset::text, '')
        || ' ' || coalesce(w.stats_reset::text, '') || ' ' || coalesce(c.stats_reset::text, '')
        as epoch,
    d.xact_commit as commits,
    d.xact_rollback as rollbacks,
    i.hits as block_hits,
    i.reads as block_reads,
    d.deadlocks,
    d.temp_files,
    d.temp_bytes,
    w.wal_bytes::int8 as wal_bytes,
    w.wal_buffers_full,
    c.checkpoints_timed,
    c.checkpoints_req as checkpoints_requested,
    c.checkpoint_write_time::int8 as checkpoint_write_ms,
    c.checkpoint_sync_time::int8 as checkpoint_sync_ms,
    c.buffers_checkpoint as checkpoint_buffers,
    i.backend_writes,
    i.backend_fsyncs
from pg_catalog.pg_stat_database as d
cross join pg_catalog.pg_stat_wal as w
cross join pg_catalog.pg_stat_bgwriter as c
cross join (
    select
        coalesce(pg_catalog.sum(s.hits), 0)::int8 as hits,
        coalesce(pg_catalog.sum(s.reads), 0)::int8 as reads,
        coalesce(
            pg_catalog.sum(s.writes) filter (where s.backend_type = 'client backend'), 0
        )::int8 as backend_writes,
        coalesce(
            pg_catalog.sum(s.fsyncs) filter (where s.backend_type = 'client backend'), 0
        )::int8 as backend_fsyncs
    from pg_catalog.pg_stat_io as s
    where s.object = 'relation' and s.context = 'normal'
) as i
where d.datname = pg_catalog.current_database()
