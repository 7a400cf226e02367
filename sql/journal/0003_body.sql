-- purpose: large parts of events lie beside them and can be dropped; unfinished runs are found at once
-- needs: SQLite 3.37 (strict tables)

-- What an event names by its digest: `rows` for the history, and what the next look `carry`s on from.
-- Compressed by zstd. The chain covers the digests, so parts can go and it still holds.
create table body (
  position integer not null,
  part     text    not null,
  at       integer not null,
  bytes    blob    not null,
  primary key (position, part)
) strict;

create index body_by_age on body (part, at);

-- Rows of events up to this position may be gone: they are in the history.
alter table journal add column dropped integer not null default 0;

-- The condition of `Reader::runs`, word for word.
create index run_unfinished on run (created)
where outcome not in ('succeeded', 'failed', 'cancelled');
