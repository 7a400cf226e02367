-- purpose: the first schema of the journal: a hash-linked list of events, plans, and what is derived
-- needs: SQLite 3.37 (strict tables)

-- The identity of this journal, drawn once: the first link of the chain.
create table journal (
  id text not null
) strict;

-- The truth. A payload over 1 MiB is null here and lies in blobs/, under its digest.
create table event (
  position       integer primary key,
  stream         text    not null,
  seq            integer not null,
  at             integer not null,
  kind           text    not null,
  payload        text,
  payload_digest blob    not null,
  hash           blob    not null
) strict;

create unique index event_by_stream on event (stream, seq);

-- The kinds of `Event::DECISIONS`.
create index event_decision on event (stream, seq)
where kind in ('cancel_requested', 'approval_decided', 'doubt_settled', 'unstuck', 'override');

create table plan (
  id           text primary key,
  bytes        blob not null,
  bytes_digest blob not null
) strict, without rowid;

-- Derived from the events, written in the same transaction; `verify` compares them with a rebuild.
create table run (
  run_id     text    primary key,
  created    integer not null,
  plan_id    text    not null,
  workflow   text    not null,
  target     text    not null,
  outcome    text    not null,
  created_at integer not null,
  updated_at integer not null,
  wake_at    integer,
  key        text
) strict, without rowid;

create unique index run_by_key on run (key) where key is not null;

create index run_by_creation on run (created);

create table lock_queue (
  position integer primary key,
  lock     text    not null,
  run_id   text    not null
) strict;

create unique index lock_queue_by_lock on lock_queue (lock, run_id);

create index lock_queue_by_run on lock_queue (run_id);
