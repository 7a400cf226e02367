//! Triggers: which events start a run, and why the others do not.

use serde_json::{Map, Value, json};

use super::{Misplaced, Turn};
use crate::journal::event::Event;
use crate::journal::occasion::{Cause, MOST_DEPTH, TriggerFate};
use crate::journal::store::{Entry, Stream};
use crate::kernel::{RunId, Timestamp};
use crate::sop::{Sandbox, Scope};
use crate::workflow::elements::trigger::Trigger;

/// The kinds of entries that are events for triggers.
pub const EVENT_KINDS: [&str; 5] =
    ["event_published", "run_finished", "approval_requested", "run_stuck", "change_in_doubt"];

/// An event as triggers see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its place in the journal: its identity.
    pub position: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// What expressions see as `event`: the payload, and the `name`.
    pub event: Value,
    /// How many events caused one another, this one included. The engine's own events of a run that an
    /// event started are told apart by [`Published::run`].
    pub depth: u32,
    /// The run that it happened in.
    pub run: Option<RunId>,
}

impl Published {
    /// The event that an entry is: what somebody published, or what the engine says of a run: finished,
    /// waits for an approval, stuck, in doubt.
    pub fn of(entry: &Entry) -> Option<Self> {
        let run = match Stream::parse(&entry.stream) {
            Stream::Run(run) => Some(run),
            _ => None,
        };
        let (name, payload, depth) = match &entry.event {
            Event::EventPublished { name, payload, depth } => {
                (name.as_str(), payload.clone(), *depth)
            }
            Event::RunFinished { outcome, compensation, .. } => {
                ("run_finished", json!({ "outcome": outcome, "compensation": compensation }), 1)
            }
            Event::ApprovalRequested { step, request } => (
                "approval_requested",
                json!({ "step": step, "risk": request.risk, "prompt": request.prompt }),
                1,
            ),
            Event::RunStuck { step, why } => ("run_stuck", json!({ "step": step, "why": why }), 1),
            Event::ChangeInDoubt { step, why, .. } => {
                ("change_in_doubt", json!({ "step": step, "why": why }), 1)
            }
            _ => return None,
        };
        let mut fields = match payload {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            other => Map::from_iter([("payload".to_owned(), other)]),
        };
        fields.entry("name").or_insert_with(|| json!(name));
        if let Some(run) = &run {
            fields.entry("run_id").or_insert_with(|| json!(run));
        }
        let (position, at) = (entry.position, entry.at);
        Some(Self { position, at, name: name.to_owned(), event: Value::Object(fields), depth, run })
    }

    /// The same event with what is known of its run: its workflow, and how deep it was caused itself.
    #[must_use]
    pub fn in_run(mut self, workflow: &str, cause: Option<&Cause>) -> Self {
        if let Value::Object(fields) = &mut self.event {
            fields.entry("workflow").or_insert_with(|| json!(workflow));
        }
        self.depth = self.depth.max(cause.map_or(0, Cause::depth) + 1);
        self
    }
}

/// The id of a trigger: workflow, event and condition.
pub fn id(workflow: &str, trigger: &Trigger) -> String {
    match &trigger.when {
        Some(when) => format!("{workflow} on {} when {when}", trigger.event),
        None => format!("{workflow} on {}", trigger.event),
    }
}

/// What the journal says of a trigger.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The sequence number of the newest entry.
    pub last_seq: u64,
    /// Events up to this position are decided; `None`: it was never seen.
    pub position: Option<u64>,
    /// When it started its newest run.
    pub fired_at: Option<Timestamp>,
    /// How many entries it follows from.
    pub entries: u32,
}

impl Standing {
    /// The standing that follows from the entries of the trigger's stream, from its newest
    /// `trigger_seen` on.
    pub fn replay(entries: &[Entry]) -> Result<Self, Misplaced> {
        let mut standing = Self::default();
        entries.iter().try_for_each(|entry| standing.apply(entry))?;
        Ok(standing)
    }

    /// Takes an entry in.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Misplaced> {
        let misplaced = |what: String| Misplaced { position: entry.position, what };
        match &entry.event {
            Event::TriggerSeen { position, fired_at, .. } => {
                self.position = Some(*position);
                self.fired_at = *fired_at;
                self.entries = 0;
            }
            Event::TriggerDecided { position, fate, .. } => {
                if self.position.is_none_or(|known| *position <= known) {
                    return Err(misplaced(format!("event {position} was decided before")));
                }
                self.position = Some(*position);
                if *fate == TriggerFate::Fired {
                    self.fired_at = Some(entry.at);
                }
            }
            other => return Err(misplaced(format!("`{}` is not about triggers", other.kind()))),
        }
        self.last_seq = entry.seq;
        self.entries += 1;
        Ok(())
    }

    /// What is recorded before anything is decided: a trigger that is new looks at what is published
    /// after `head`; one with many entries is summed up.
    pub fn introduce(
        &self,
        (id, workflow, trigger): (&str, &str, &Trigger),
        head: u64,
    ) -> Option<Event> {
        if self.position.is_some() && self.entries < super::SUMMED_UP_AFTER {
            return None;
        }
        Some(Event::TriggerSeen {
            trigger: id.to_owned(),
            workflow: workflow.to_owned(),
            event: trigger.event.clone(),
            position: self.position.unwrap_or(head),
            fired_at: self.fired_at,
        })
    }
}

/// What a trigger makes of an event, and why it is no run.
pub type Verdict = (TriggerFate, Option<String>);

/// What a trigger makes of an event of its name that it has not decided on.
pub fn decide(
    (trigger, standing): (&Trigger, &Standing),
    event: &Published,
    unfinished: usize,
    sandbox: &Sandbox,
) -> Verdict {
    if event.depth > MOST_DEPTH {
        let why = format!("{} events caused one another; at most {MOST_DEPTH} may", event.depth);
        return (TriggerFate::TooDeep, Some(why));
    }
    match holds(trigger.when.as_deref(), event, sandbox) {
        Ok(true) => {}
        Ok(false) => return (TriggerFate::Unmet, None),
        Err(why) => return (TriggerFate::Invalid, Some(why)),
    }
    // The event's own time counts: a server that was down decides as one that was there.
    if let Some(fired_at) = standing.fired_at
        && !trigger.cooldown.0.is_zero()
        && event.at < fired_at.plus(trigger.cooldown.0)
    {
        let until = fired_at.plus(trigger.cooldown.0);
        return (TriggerFate::CoolingDown, Some(format!("until {until}")));
    }
    match Turn::of(trigger.overlap, unfinished) {
        Turn::Start | Turn::Queue => (TriggerFate::Fired, None),
        Turn::Skip => (TriggerFate::Skipped, Some("an earlier run is not finished".to_owned())),
    }
}

fn holds(when: Option<&str>, event: &Published, sandbox: &Sandbox) -> Result<bool, String> {
    let Some(when) = when else { return Ok(true) };
    let expression = sandbox.expression(when).map_err(|error| error.to_string())?;
    let scope = Scope::from_iter([("event".to_owned(), event.event.clone())]);
    let evaluated = expression.evaluate(&scope).map_err(|error| error.to_string())?;
    evaluated.as_bool().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::event::{Compensation, Outcome};
    use crate::kernel::Span;
    use crate::workflow::elements::Overlap;

    fn entry(position: u64, at: i64, event: Event) -> Entry {
        let at = Timestamp::from_millis(at);
        Entry { position, stream: "aa".into(), seq: position, at, event }
    }

    fn breach(position: u64, at: i64, metric: &str, depth: u32) -> Published {
        let payload = json!({ "metric": metric });
        let event = Event::EventPublished { name: "threshold_breached".into(), payload, depth };
        Published::of(&entry(position, at, event)).unwrap()
    }

    fn trigger(when: Option<&str>, cooldown: u64) -> Trigger {
        Trigger {
            event: "threshold_breached".to_owned(),
            when: when.map(str::to_owned),
            overlap: Overlap::Skip,
            cooldown: Span::from_secs(cooldown),
        }
    }

    #[test]
    fn an_event_starts_a_run_when_its_condition_holds() {
        let locks = trigger(Some("event.metric == \"locks\""), 0);
        let sandbox = Sandbox::new();
        let fate = |event: &Published, unfinished| {
            decide((&locks, &Standing::default()), event, unfinished, &sandbox).0
        };
        assert_eq!(fate(&breach(1, 0, "locks", 1), 0), TriggerFate::Fired);
        assert_eq!(fate(&breach(1, 0, "bloat", 1), 0), TriggerFate::Unmet);
        assert_eq!(fate(&breach(1, 0, "locks", 1), 1), TriggerFate::Skipped);
        assert_eq!(fate(&breach(1, 0, "locks", 8), 0), TriggerFate::Fired);
        assert_eq!(fate(&breach(1, 0, "locks", 9), 0), TriggerFate::TooDeep);
        let odd = trigger(Some("event.metric + 1"), 0);
        let verdict = decide((&odd, &Standing::default()), &breach(1, 0, "x", 1), 0, &sandbox);
        assert_eq!(verdict.0, TriggerFate::Invalid);
    }

    #[test]
    fn a_cooldown_counts_by_the_time_of_the_events() {
        let standing =
            Standing { fired_at: Some(Timestamp::from_millis(1_000)), ..Standing::default() };
        let ten = trigger(None, 10);
        let fate = |at| decide((&ten, &standing), &breach(2, at, "x", 1), 0, &Sandbox::new()).0;
        assert_eq!(fate(10_999), TriggerFate::CoolingDown);
        assert_eq!(fate(11_000), TriggerFate::Fired);
        let none = trigger(None, 0);
        let late = decide((&none, &standing), &breach(2, 0, "x", 1), 0, &Sandbox::new()).0;
        assert_eq!(late, TriggerFate::Fired, "an event from before the last run counts too");
    }

    #[test]
    fn no_event_is_decided_twice() {
        let decided = |position| Event::TriggerDecided {
            trigger: "t".into(),
            position,
            fate: TriggerFate::Fired,
            run: None,
            why: None,
        };
        let seen = Event::TriggerSeen {
            trigger: "t".into(),
            workflow: "w".into(),
            event: "e".into(),
            position: 4,
            fired_at: None,
        };
        let entries = |events: Vec<Event>| -> Vec<Entry> {
            (1..).zip(events).map(|(at, event)| entry(at, 0, event)).collect()
        };
        assert!(Standing::replay(&entries(vec![seen.clone(), decided(5), decided(7)])).is_ok());
        assert!(Standing::replay(&entries(vec![seen.clone(), decided(5), decided(5)])).is_err());
        assert!(Standing::replay(&entries(vec![seen, decided(4)])).is_err());
        assert!(Standing::replay(&entries(vec![decided(5)])).is_err());
    }

    #[test]
    fn the_end_of_a_run_is_an_event() {
        let end = Event::RunFinished {
            outcome: Outcome::Failed,
            compensation: Compensation::None,
            outputs: Value::Null,
        };
        let found = Published::of(&entry(3, 0, end)).unwrap();
        let cause = Cause::Event { trigger: "t".into(), position: 1, event: json!({}), depth: 3 };
        let found = found.in_run("heal", Some(&cause));
        assert_eq!((found.name.as_str(), found.depth), ("run_finished", 4));
        assert_eq!(
            (&found.event["outcome"], &found.event["workflow"]),
            (&json!("failed"), &json!("heal"))
        );
    }
}
