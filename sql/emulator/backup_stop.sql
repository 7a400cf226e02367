-- purpose: ends a copy of the data directory; the label belongs into the copy
-- needs: PostgreSQL 15; superuser; the session that began the copy
-- params: none
-- columns: lsn text, label text, tablespaces text
select b.lsn::text as lsn, b.labelfile as label, b.spcmapfile as tablespaces
  from pg_catalog.pg_backup_stop(false) as b
