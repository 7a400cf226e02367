-- purpose: which object needs which; types of rows and arrays stand for the relation or the element, members of an extension for the extension
-- needs: PostgreSQL 14 or later
-- params: none
-- columns: class text, object bigint, part integer, needs_class text, needs bigint, needs_part integer
with resolved as (
  select
    d.classid,
    d.objid,
    d.objsubid,
    coalesce(e.refclassid, case when r.typrelid <> 0 then 'pg_catalog.pg_class'::pg_catalog.regclass end,
      d.refclassid) as refclassid,
    coalesce(e.refobjid, nullif(r.typrelid, 0), r.oid, d.refobjid) as refobjid,
    case when e.refobjid is null then d.refobjsubid else 0 end as refobjsubid
  from pg_catalog.pg_depend d
  left join pg_catalog.pg_type t
    on d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = d.refobjid
  left join pg_catalog.pg_type r
    on r.oid = case when t.typcategory = 'A' and t.typelem <> 0 then t.typelem else t.oid end
  left join pg_catalog.pg_depend e
    on e.classid = d.refclassid and e.objid = coalesce(r.oid, d.refobjid) and e.deptype = 'e'
  where d.deptype in ('n', 'a', 'i')
    and d.objid >= 16384
    and (d.refobjid >= 16384 or d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass)
)
select distinct
  case when w.oid is not null and w.rulename = '_RETURN' then 'pg_class'
    else d.classid::pg_catalog.regclass::text end as class,
  case when w.oid is not null and w.rulename = '_RETURN' then w.ev_class else d.objid end::bigint as object,
  d.objsubid as part,
  d.refclassid::pg_catalog.regclass::text as needs_class,
  d.refobjid::bigint as needs,
  d.refobjsubid as needs_part
from resolved d
left join pg_catalog.pg_rewrite w
  on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = d.objid
