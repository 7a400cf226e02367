-- purpose: the sequences that are nearest their end, which is that of the column they feed
-- needs: PostgreSQL 14; a sequence that we may not read is left out
-- params: $1 count int8
-- columns: sequence text, last_value int8, end_value int8, used float8, column_type text
with fed as (
    -- The owning column, and every column whose default draws from it.
    select d.objid as seq, a.atttypid
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_catalog.pg_class'::regclass
        and d.refclassid = 'pg_catalog.pg_class'::regclass
        and d.deptype in ('a', 'i')
        and d.refobjsubid > 0
    union
    select d.refobjid, a.atttypid
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_attrdef as f on f.oid = d.objid
    join pg_catalog.pg_attribute as a on a.attrelid = f.adrelid and a.attnum = f.adnum
    where d.classid = 'pg_catalog.pg_attrdef'::regclass
        and d.refclassid = 'pg_catalog.pg_class'::regclass
),
ends as (
    select
        c.oid,
        pg_catalog.format('%I.%I', n.nspname, c.relname) as sequence,
        q.last_value,
        s.seqincrement > 0 as ascending,
        s.seqmin,
        least(s.seqmax, w.widest) as seqmax,
        w.column_type
    from pg_catalog.pg_sequence as s
    join pg_catalog.pg_class as c on c.oid = s.seqrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_sequences as q on q.schemaname = n.nspname and q.sequencename = c.relname
    left join lateral (
        select
            case f.atttypid
                when 'pg_catalog.int2'::regtype then 32767
                when 'pg_catalog.int4'::regtype then 2147483647
                else 9223372036854775807
            end as widest,
            pg_catalog.format_type(f.atttypid, null) as column_type
        from fed as f
        where f.seq = c.oid
        order by 1
        limit 1
    ) as w on true
    -- One that starts again at its end never ends.
    where not s.seqcycle and q.last_value is not null
)
select
    e.sequence,
    e.last_value,
    case when e.ascending then e.seqmax else e.seqmin end as end_value,
    greatest(
        case
            when e.ascending then e.last_value::numeric / nullif(e.seqmax, 0)
            else e.last_value::numeric / nullif(e.seqmin, 0)
        end,
        0
    )::float8 as used,
    e.column_type
from ends as e
order by used desc nulls last, e.sequence
limit $1::int8
