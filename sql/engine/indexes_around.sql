-- purpose: lists the indexes of the table that a relation is or belongs to, before and after index work
-- needs: PostgreSQL 14
-- params: $1 relation text (as written in SQL; a table or an index), $2 table_oid bigint (or null)
-- columns: table_oid bigint, oid bigint, schema text, name text, relfilenode bigint, valid boolean,
--   building boolean, named boolean, definition text
with named as (
    select pg_catalog.to_regclass($1)::oid as oid
), scope as (
    select t.oid, t.reltoastrelid
      from pg_catalog.pg_class as t
     where t.oid = coalesce(
               $2::bigint::oid,
               (select i.indrelid from pg_catalog.pg_index as i join named as n on n.oid = i.indexrelid),
               (select n.oid from named as n))
)
select
    s.oid::bigint as table_oid,
    c.oid::bigint as oid,
    ns.nspname::text as schema,
    c.relname::text as name,
    pg_catalog.pg_relation_filenode(c.oid)::bigint as relfilenode,
    i.indisvalid as valid,
    exists (select from pg_catalog.pg_stat_progress_create_index as p where p.index_relid = c.oid)
        as building,
    c.oid is not distinct from (select n.oid from named as n) as named,
    pg_catalog.pg_get_indexdef(c.oid) as definition
  from scope as s
  left join pg_catalog.pg_index as i on i.indrelid in (s.oid, s.reltoastrelid)
  left join pg_catalog.pg_class as c on c.oid = i.indexrelid
  left join pg_catalog.pg_namespace as ns on ns.oid = c.relnamespace
 order by c.oid
