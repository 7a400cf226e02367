-- purpose: the conditions of partial indexes say what they mean by comparisons alone
-- needs: SQLite 3.37 (strict tables)

-- A list of more than two values (`in (…)`) is built anew, as a table of its own, by each statement that writes
-- a row: it was half of the cost of an event.

drop index event_decision;
drop index event_rare;
drop index run_unfinished;
drop index run_sealable;

-- The kinds of `Event::DECISIONS`; the condition of `Reader::decisions`, word for word.
create index event_decision on event (stream, seq)
where kind = 'cancel_requested' or kind = 'approval_decided' or kind = 'doubt_settled'
  or kind = 'unstuck' or kind = 'override';

-- The condition of `Reader::entries`, word for word.
create index event_rare on event (position)
where kind = 'override' or kind = 'set_rehearsed' or kind = 'event_published' or kind = 'runs_sealed';

-- The condition of `Reader::runs`, word for word.
create index run_unfinished on run (created)
where outcome <> 'succeeded' and outcome <> 'failed' and outcome <> 'cancelled';

-- The condition of `seal::SEALABLE`, word for word.
create index run_sealable on run (updated_at)
where sealed is null and (outcome = 'succeeded' or outcome = 'failed' or outcome = 'cancelled');
