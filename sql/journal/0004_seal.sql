-- purpose: runs that were over long ago are sealed: of most of their events only the links stay
-- needs: SQLite 3.37 (strict tables)

-- What the chain needs of events whose payloads are gone, by windows of 1,024 positions: the hash of the
-- event before the window; position, stream, seq, at and kind of each link, compressed; the digests of
-- their payloads, 32 bytes each, in the same order.
create table links (
  window  integer primary key,
  edge    blob not null,
  columns blob not null,
  digests blob not null
) strict;

-- How many events of the run are only links; null: the run is not sealed. Derived.
alter table run add column sealed integer;

-- The condition of `seal::SEALABLE`, word for word.
create index run_sealable on run (updated_at)
where sealed is null and outcome in ('succeeded', 'failed', 'cancelled');

create index run_by_plan on run (plan_id) where sealed is null;

-- Plans that only sealed runs were made from: they go a while later, unless somebody keeps them again.
create table plan_unused (
  id    text primary key,
  since integer not null
) strict, without rowid;

-- Files of payloads that are gone: they are removed by the next sealing.
create table blob_unused (
  digest blob primary key
) strict, without rowid;

create index event_in_file on event (payload_digest) where payload is null;

-- Kinds that are looked for in the whole journal, and are few. The condition of `Reader::entries`, word for
-- word.
create index event_rare on event (position)
where kind in ('override', 'set_rehearsed', 'event_published', 'runs_sealed');
