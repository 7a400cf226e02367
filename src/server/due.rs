//! Slots and events: decided by [`crate::schedule`], recorded here together with the runs that they
//! start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use super::{Occasions, Server, ServerError, Wanted, error_text};
use crate::engine::EngineError;
use crate::journal::Outcome;
use crate::journal::event::{Event, Principal};
use crate::journal::occasion::{Cause, SlotFate, TriggerFate, event_prefix, slot_prefix};
use crate::journal::store::{
    Append, Durability, Entry, EntryFilter, Expect, JournalError, RunSummary, Stream,
};
use crate::kernel::{Failure, RunId, Target, Timestamp};
use crate::plan::{Given, Plan};
use crate::schedule;
use crate::schedule::slots::{self, Look, Row};
use crate::schedule::triggers::{self, EVENT_KINDS, Published};
use crate::workflow::cron::CronSchedule;
use crate::workflow::elements::trigger::Trigger;
use crate::workflow::elements::{Overlap, ScheduleSpec};

/// How many computes are asked after at once, and for how long: what does not answer is not waited for.
const AT_ONCE: usize = 16;
const PATIENCE: Duration = Duration::from_secs(3);

/// A schedule, and how it stands.
pub(super) struct Scheduled {
    workflow: String,
    spec: ScheduleSpec,
    cron: CronSchedule,
    /// `None`: it has to be read.
    pub(super) standing: Option<slots::Standing>,
    /// When there is something to decide.
    due: Option<Timestamp>,
}

/// A trigger, and how it stands.
pub(super) struct Triggered {
    workflow: String,
    trigger: Trigger,
    /// `None`: it has to be read.
    pub(super) standing: Option<triggers::Standing>,
}

impl Server<'_> {
    /// Takes in what starts by itself from now on.
    pub(super) async fn reload(&mut self, occasions: Occasions) -> Result<(), ServerError> {
        let mut schedules = BTreeMap::new();
        for (workflow, spec) in occasions.schedules {
            // Validation refuses what cannot be read; a file that changed meanwhile is told by it.
            let Ok(cron) = CronSchedule::parse(&spec.cron, &spec.time_zone) else { continue };
            if schedules.contains_key(&spec.id) {
                tracing::error!(
                    id = spec.id,
                    workflow,
                    "another schedule has this id; it starts nothing"
                );
                continue;
            }
            let known = self.schedules.remove(&spec.id).filter(|known| known.spec == spec);
            let standing = known.and_then(|known| known.standing);
            let due = Some(Timestamp::default());
            schedules.insert(spec.id.clone(), Scheduled { workflow, spec, cron, standing, due });
        }
        self.schedules = schedules;
        let mut triggers = BTreeMap::new();
        for (workflow, trigger) in occasions.triggers {
            let id = triggers::id(&workflow, &trigger);
            let standing = self.triggers.remove(&id).and_then(|known| known.standing);
            triggers.insert(id, Triggered { workflow, trigger, standing });
        }
        self.triggers = triggers;
        self.seen = None;
        self.metrics.occasions(self.schedules.len(), self.triggers.len());
        // A trigger that is new looks back no further than to where it was first seen.
        self.introduce_triggers().await
    }

    /// When the next slot is to be decided.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.schedules.values().filter_map(|schedule| schedule.due).min()
    }

    /// The runs that wait behind an earlier one of the same schedule or trigger.
    pub(super) fn behind(&self, open: &[RunSummary]) -> BTreeSet<RunId> {
        let queue = |overlap| overlap == Overlap::QueueOne;
        let slots = self.schedules.iter().filter(|(_, known)| queue(known.spec.overlap));
        let events = self.triggers.iter().filter(|(_, known)| queue(known.trigger.overlap));
        let prefixes =
            slots.map(|(id, _)| slot_prefix(id)).chain(events.map(|(id, _)| event_prefix(id)));
        let mut behind = BTreeSet::new();
        for prefix in prefixes {
            let own = open.iter().filter(|run| has_prefix(run, &prefix));
            behind.extend(own.skip(1).map(|run| run.run_id.clone()));
        }
        behind
    }

    // ---- slots -------------------------------------------------------------------------------

    /// Decides on every slot that is due.
    pub(super) async fn look_at_slots(
        &mut self,
        open: &mut Vec<RunSummary>,
    ) -> Result<(), ServerError> {
        let now = self.now();
        // One without a time waits for its own runs: it may be its turn.
        let is_due = |known: &Scheduled| known.due.is_none_or(|due| due <= now);
        let mut due: Vec<_> = self.schedules.iter().filter(|(_, known)| is_due(known)).collect();
        // Those that wait for their own runs mostly start nothing: they take no room from one that is due.
        due.sort_by_key(|(_, known)| (known.due.is_none(), known.due));
        // A slot that finds no room stays due; once it is late, its policy says what becomes of it.
        let due = due.into_iter().take(self.most.room(open));
        let ids: Vec<String> = due.map(|(id, _)| id.clone()).collect();
        for id in &ids {
            self.introduce_schedule(id, now).await?;
        }
        let mut asked = self.ask_around(&ids, now, open).await;
        for id in ids {
            if self.most.room(open) == 0 {
                break;
            }
            let asked = asked.remove(&id);
            self.look_at_schedule(&id, now, (open, asked)).await?;
        }
        Ok(())
    }

    /// Plans what is to start, and asks at once which of it leaves its compute alone.
    async fn ask_around(
        &self,
        ids: &[String],
        now: Timestamp,
        open: &[RunSummary],
    ) -> BTreeMap<String, Asked> {
        let starting = ids.iter().filter_map(|id| {
            let decision = self.decide(id, now, open)?;
            let slot = decision.rows.iter().find(|row| row.starts())?.first;
            let known = self.schedules.get(id)?;
            let next = known.cron.next_after(slot);
            let interval = next.map_or(Duration::MAX, |next| next.since(slot));
            let wanted = Wanted { workflow: known.workflow.clone(), ..Wanted::default() };
            Some((id.clone(), self.workflows.plan(&wanted), interval))
        });
        let questions = starting.map(async |(id, planned, interval)| {
            let left_alone = match &planned {
                Ok(plan) => self.left_alone(plan, interval).await,
                Err(_) => None,
            };
            (id, Asked { planned, left_alone })
        });
        futures::stream::iter(questions).buffer_unordered(AT_ONCE).collect().await
    }

    /// Why the compute of a plan's target is left alone. What wakes it by its own will is not kept from it.
    async fn left_alone(&self, plan: &Plan, interval: Duration) -> Option<String> {
        let body = &plan.body;
        if body.target.branch.is_none() || body.may_wake() || !self.needs_database(plan) {
            return None;
        }
        let endpoints = &self.engine.parts().endpoints;
        let asked = endpoints.left_alone(&body.connection, &body.target, interval);
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(why)) => why,
            // The run will meet the same, and say so.
            Ok(Err(failure)) => {
                tracing::debug!(%failure, target = %body.target, "its compute cannot be looked at");
                None
            }
            Err(_elapsed) => None,
        }
    }

    /// Whether something in the plan works on the target's database by SQL of ours.
    fn needs_database(&self, plan: &Plan) -> bool {
        let catalog = &self.engine.parts().catalog;
        let mut tools = plan.body.tools.keys().filter_map(|name| catalog.find(name));
        !plan.body.sql.is_empty() || tools.any(|tool| !tool.meta().sql.is_empty())
    }

    fn decide(&self, id: &str, now: Timestamp, open: &[RunSummary]) -> Option<slots::Decision> {
        let known = self.schedules.get(id)?;
        let prefix = slot_prefix(id);
        Some(slots::decide(&Look {
            spec: &known.spec,
            cron: &known.cron,
            standing: known.standing.as_ref()?,
            now,
            alive_since: self.alive_since,
            unfinished: open.iter().filter(|run| has_prefix(run, &prefix)).count(),
        }))
    }

    async fn look_at_schedule(
        &mut self,
        id: &str,
        now: Timestamp,
        (open, asked): (&mut Vec<RunSummary>, Option<Asked>),
    ) -> Result<(), ServerError> {
        let Some(decision) = self.decide(id, now, open) else { return Ok(()) };
        if asked.is_none() && decision.rows.iter().any(Row::starts) {
            // Nobody planned it yet: it stays due.
            return Ok(());
        }
        for row in decision.rows {
            let started = self.settle_slots(id, row, asked.as_ref()).await?;
            open.extend(started);
        }
        if let Some(known) = self.schedules.get_mut(id) {
            known.due = decision.next;
        }
        Ok(())
    }

    async fn introduce_schedule(&mut self, id: &str, now: Timestamp) -> Result<(), ServerError> {
        let stream = Stream::schedule(id);
        let journal = Arc::clone(&self.engine.parts().journal);
        let Some(known) = self.schedules.get_mut(id) else { return Ok(()) };
        let mut standing = if let Some(mut standing) = known.standing.take() {
            // A person may have paused it, or let it go on.
            for entry in journal.read(&stream, standing.last_seq).await? {
                standing.apply(&entry)?;
            }
            standing
        } else {
            schedule::standing(&*journal, id).await?
        };
        let events = standing.introduce(&known.workflow, &known.spec, now);
        if !events.is_empty() {
            let append = Append { stream, expect: Expect::Last(standing.last_seq), events };
            for entry in journal.append(vec![append], Durability::Synced).await? {
                standing.apply(&entry)?;
            }
        }
        known.standing = Some(standing);
        Ok(())
    }

    /// Records what becomes of slots, with the run where one is started.
    async fn settle_slots(
        &mut self,
        id: &str,
        mut row: Row,
        asked: Option<&Asked>,
    ) -> Result<Option<RunSummary>, ServerError> {
        let Some(known) = self.schedules.get(id) else { return Ok(None) };
        let Some(standing) = &known.standing else { return Ok(None) };
        let mut why =
            (row.fate == SlotFate::Skipped).then(|| "an earlier run is not finished".to_owned());
        if row.starts()
            && let Some(left_alone) = asked.and_then(|asked| asked.left_alone.clone())
        {
            row.fate = SlotFate::LeftAlone;
            why = Some(left_alone);
        }
        let append = |event| Append {
            stream: Stream::schedule(id),
            expect: Expect::Last(standing.last_seq),
            events: vec![event],
        };
        let settled = if let Some(asked) = asked.filter(|_| row.starts()) {
            let cause = Cause::Slot { schedule: id.to_owned(), slot: row.first };
            let by = ourselves(&format!("schedule {id}"));
            let recorded = |started: Result<&RunId, String>| match started {
                Ok(run) => append(row.event(id, Some(run.clone()), None)),
                Err(why) => {
                    append(Row { fate: SlotFate::Invalid, ..row }.event(id, None, Some(why)))
                }
            };
            self.start_for(asked.planned.as_ref(), (by, cause), recorded).await?
        } else {
            self.note(append(row.event(id, None, why))).await?
        };
        let fate = if row.starts() && settled.run.is_none() { SlotFate::Invalid } else { row.fate };
        self.metrics.slots(fate, row.count);
        if let Some(why) = settled.why {
            tracing::error!(schedule = id, slot = %row.first, why, "a slot could not start its run");
        }
        if let Some(standing) = self.schedules.get_mut(id).and_then(|known| known.standing.as_mut())
        {
            take_in(&settled.entries, &Stream::schedule(id), |entry| standing.apply(entry))?;
        }
        Ok(settled.run)
    }

    /// Starts the run that was planned, in one commit with what `recorded` says of it. Where it cannot be
    /// started, that is recorded instead.
    async fn start_for(
        &self,
        planned: Result<&Plan, &Failure>,
        (by, cause): (Principal, Cause),
        recorded: impl Fn(Result<&RunId, String>) -> Append,
    ) -> Result<Settled, ServerError> {
        let why = match planned {
            Err(failure) => failure.to_string(),
            Ok(plan) => {
                let also = |run: &RunId| recorded(Ok(run));
                match self.engine.start_because(plan, (by, cause), also).await {
                    Ok((run, entries)) => {
                        let run = Some(summary(plan, &run, &entries));
                        return Ok(Settled { run, entries, why: None });
                    }
                    Err(error) => refusal(error)?,
                }
            }
        };
        let settled = self.note(recorded(Err(why.clone()))).await?;
        Ok(Settled { why: Some(why), ..settled })
    }

    /// Records something that starts no run.
    async fn note(&self, append: Append) -> Result<Settled, ServerError> {
        let journal = &self.engine.parts().journal;
        let entries = journal.append(vec![append], Durability::Synced).await?;
        Ok(Settled { run: None, entries, why: None })
    }

    // ---- events ------------------------------------------------------------------------------

    async fn introduce_triggers(&mut self) -> Result<(), ServerError> {
        let journal = Arc::clone(&self.engine.parts().journal);
        let head = journal.head().await?.position;
        for (id, known) in &mut self.triggers {
            let stream = Stream::trigger(id);
            let mut standing = if let Some(standing) = known.standing.take() {
                standing
            } else {
                let standing = schedule::trigger_standing(&*journal, id).await?;
                // It may have missed events while no server lived.
                self.scanned = self.scanned.min(standing.position.unwrap_or(head));
                standing
            };
            if let Some(seen) = standing.introduce((id, &known.workflow, &known.trigger), head) {
                let expect = Expect::Last(standing.last_seq);
                let append = Append { stream, expect, events: vec![seen] };
                for entry in journal.append(vec![append], Durability::Synced).await? {
                    standing.apply(&entry)?;
                }
            }
            known.standing = Some(standing);
        }
        Ok(())
    }

    /// Decides on every event that was published since the last look.
    pub(super) async fn look_at_events(
        &mut self,
        head: u64,
        open: &mut Vec<RunSummary>,
    ) -> Result<(), ServerError> {
        self.introduce_triggers().await?;
        if self.triggers.is_empty() {
            self.scanned = head;
            return Ok(());
        }
        loop {
            let filter = EntryFilter {
                kinds: EVENT_KINDS.map(str::to_owned).to_vec(),
                after: self.scanned,
                limit: Some(500),
                ..EntryFilter::default()
            };
            let entries = self.engine.parts().journal.entries(filter).await?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if self.most.room(open) == 0 {
                    return Ok(());
                }
                if let Some(event) = Published::of(&entry) {
                    self.look_at_event(event, open).await?;
                }
                self.scanned = entry.position;
            }
        }
        self.scanned = self.scanned.max(head);
        Ok(())
    }

    async fn look_at_event(
        &mut self,
        event: Published,
        open: &mut Vec<RunSummary>,
    ) -> Result<(), ServerError> {
        let is_open = |known: &Triggered| {
            known.trigger.event == event.name
                && known.standing.as_ref().is_some_and(|standing| {
                    standing.position.is_some_and(|position| position < event.position)
                })
        };
        let wanted: Vec<String> = self
            .triggers
            .iter()
            .filter(|(_, known)| is_open(known))
            .map(|(id, _)| id.clone())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let event = self.with_its_run(event).await?;
        for id in wanted {
            let started = self.settle_event(&id, &event, open).await?;
            open.extend(started);
        }
        Ok(())
    }

    /// The event with what is known of the run that it happened in.
    async fn with_its_run(&self, event: Published) -> Result<Published, ServerError> {
        let Some(run) = event.run.clone() else { return Ok(event) };
        let first = EntryFilter {
            stream: Some(run.as_str().to_owned()),
            limit: Some(1),
            ..EntryFilter::default()
        };
        let entries = self.engine.parts().journal.entries(first).await?;
        Ok(match entries.first().map(|entry| &entry.event) {
            Some(Event::RunCreated { workflow, cause, .. }) => {
                event.in_run(workflow, cause.as_deref())
            }
            _ => event,
        })
    }

    async fn settle_event(
        &mut self,
        id: &str,
        event: &Published,
        open: &[RunSummary],
    ) -> Result<Option<RunSummary>, ServerError> {
        let Some(known) = self.triggers.get(id) else { return Ok(None) };
        let Some(standing) = &known.standing else { return Ok(None) };
        let prefix = event_prefix(id);
        let unfinished = open.iter().filter(|run| has_prefix(run, &prefix)).count();
        let (fate, why) =
            triggers::decide((&known.trigger, standing), event, unfinished, &self.sandbox);
        let decided = |fate, run, why| Append {
            stream: Stream::trigger(id),
            expect: Expect::Last(standing.last_seq),
            events: vec![Event::TriggerDecided {
                trigger: id.to_owned(),
                position: event.position,
                fate,
                run,
                why,
            }],
        };
        let settled = if fate == TriggerFate::Fired {
            let cause = Cause::Event {
                trigger: id.to_owned(),
                position: event.position,
                event: event.event.clone(),
                depth: event.depth,
            };
            let by = ourselves(&format!("event {}", event.name));
            let recorded = |started: Result<&RunId, String>| match started {
                Ok(run) => decided(fate, Some(run.clone()), None),
                Err(why) => decided(TriggerFate::Invalid, None, Some(why)),
            };
            let planned = self.workflows.plan(&wanted(&known.workflow, event));
            self.start_for(planned.as_ref(), (by, cause), recorded).await?
        } else {
            self.note(decided(fate, None, why.clone())).await?
        };
        let is_invalid = fate == TriggerFate::Fired && settled.run.is_none();
        self.metrics.event(if is_invalid { TriggerFate::Invalid } else { fate });
        let is_told = matches!(fate, TriggerFate::Invalid | TriggerFate::TooDeep);
        if let Some(why) = settled.why.or(why.filter(|_| is_told)) {
            tracing::error!(
                trigger = id,
                event = event.name,
                why,
                "an event could not start its run"
            );
        }
        if let Some(standing) = self.triggers.get_mut(id).and_then(|known| known.standing.as_mut())
        {
            take_in(&settled.entries, &Stream::trigger(id), |entry| standing.apply(entry))?;
        }
        Ok(settled.run)
    }
}

/// What was found out about a schedule before its slots are settled.
struct Asked {
    planned: Result<Plan, Failure>,
    /// Why its compute is left alone.
    left_alone: Option<String>,
}

/// What came of a slot or an event.
struct Settled {
    run: Option<RunSummary>,
    entries: Vec<Entry>,
    /// Why there is no run although there should be one.
    why: Option<String>,
}

/// What events call by its id, and parameters by its name.
const BY_ID: [(&str, &str); 2] = [("project_id", "project"), ("branch_id", "branch")];

/// The plan that an event asks for: its fields are offered to parameters of the same name, and the branch
/// that it is about to `project` and `branch`.
fn wanted(workflow: &str, event: &Published) -> Wanted {
    let fields = event.event.as_object().into_iter().flatten();
    let offered = fields.map(|(name, value)| (name.clone(), Given::Json(value.clone())));
    let mut offered: BTreeMap<String, Given> = offered.collect();
    for (id, name) in BY_ID {
        if let Some(value) = event.event.get(id).filter(|value| !value.is_null()) {
            offered.entry(name.to_owned()).or_insert_with(|| Given::Json(value.clone()));
        }
    }
    Wanted {
        workflow: workflow.to_owned(),
        params: BTreeMap::new(),
        offered,
        target: Target::default(),
    }
}

fn take_in<E>(
    entries: &[Entry],
    stream: &Stream,
    mut apply: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    entries.iter().filter(|entry| entry.stream == stream.as_str()).try_for_each(&mut apply)
}

fn has_prefix(run: &RunSummary, prefix: &str) -> bool {
    run.key.as_ref().is_some_and(|key| key.starts_with(prefix))
}

fn ourselves(from: &str) -> Principal {
    Principal { name: "lakeops".to_owned(), from: from.to_owned() }
}

/// Why a run cannot be started; what keeps anything from being recorded is an error.
fn refusal(error: EngineError) -> Result<String, ServerError> {
    match error {
        EngineError::Journal(JournalError::DuplicateKey { .. }) | EngineError::BadPlan(_) => {
            Ok(error_text(&error))
        }
        other => Err(other.into()),
    }
}

/// A run that was started this moment, as lists have it.
fn summary(plan: &Plan, run: &RunId, entries: &[Entry]) -> RunSummary {
    let created = entries.iter().find(|entry| entry.stream == run.as_str());
    let at = created.map(|entry| entry.at).unwrap_or_default();
    let key = created.and_then(|entry| match &entry.event {
        Event::RunCreated { key, .. } => key.clone(),
        _ => None,
    });
    RunSummary {
        run_id: run.clone(),
        plan_id: plan.id.clone(),
        workflow: plan.body.workflow.clone(),
        target: plan.body.target.to_string(),
        outcome: Outcome::Running,
        created_at: at,
        updated_at: at,
        wake_at: None,
        key,
        sealed: None,
    }
}
