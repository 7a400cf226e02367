-- purpose: fingerprint of a relation that a plan relies on: its place on disk, its columns, its indexes
-- needs: PostgreSQL 14
-- params: $1 relation text
-- columns: kind text, file bigint, definition text, indexes text
select c.relkind::text as kind,
       c.relfilenode::bigint as file,
       (select pg_catalog.string_agg(
                   a.attname || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                       || case when a.attnotnull then ' not null' else '' end,
                   ', ' order by a.attnum)
          from pg_catalog.pg_attribute a
         where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as definition,
       (select pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.indexrelid), '; ' order by i.indexrelid)
          from pg_catalog.pg_index i
         where i.indrelid = c.oid) as indexes
  from pg_catalog.pg_class c
 where c.oid = pg_catalog.to_regclass($1)
