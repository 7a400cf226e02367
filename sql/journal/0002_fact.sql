-- purpose: finds the outputs that later looks of the same tool on the same target go on from
-- needs: SQLite 3.37 (strict tables)

-- Derived from the events, written in the same transaction; `verify` compares it with a rebuild.
create table fact (
  position integer primary key,
  tool     text not null,
  place    text not null
) strict;

create index fact_by_name on fact (tool, place, position);
