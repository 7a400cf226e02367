-- purpose: the settings that decide when autovacuum comes
-- needs: PostgreSQL 14; max_threshold is null before 18
-- params: none
-- columns: autovacuum bool, track_counts bool, threshold float8, scale_factor float8,
--   max_threshold float8, insert_threshold float8, insert_scale_factor float8,
--   analyze_threshold float8, analyze_scale_factor float8, freeze_max_age int8,
--   multixact_freeze_max_age int8
select
    pg_catalog.current_setting('autovacuum')::bool as autovacuum,
    pg_catalog.current_setting('track_counts')::bool as track_counts,
    pg_catalog.current_setting('autovacuum_vacuum_threshold')::float8 as threshold,
    pg_catalog.current_setting('autovacuum_vacuum_scale_factor')::float8 as scale_factor,
    pg_catalog.current_setting('autovacuum_vacuum_max_threshold', true)::float8 as max_threshold,
    pg_catalog.current_setting('autovacuum_vacuum_insert_threshold')::float8 as insert_threshold,
    pg_catalog.current_setting('autovacuum_vacuum_insert_scale_factor')::float8
        as insert_scale_factor,
    pg_catalog.current_setting('autovacuum_analyze_threshold')::float8 as analyze_threshold,
    pg_catalog.current_setting('autovacuum_analyze_scale_factor')::float8 as analyze_scale_factor,
    pg_catalog.current_setting('autovacuum_freeze_max_age')::int8 as freeze_max_age,
    pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int8
        as multixact_freeze_max_age
