-- purpose: makes the extension, which only a superuser can
-- needs: PostgreSQL 14; superuser; the library is preloaded
-- params: none
-- columns: none
create extension if not exists pg_stat_statements
