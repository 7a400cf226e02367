//! What operating came to, as the journal alone says it: runs, incidents, approvals, work that no person did,
//! and what we ourselves cost. PURE.
//!
//! [`Fold`] takes the entries one by one, in journal order, and keeps only what the figures need, so a long
//! journal is read in pages. What no entry says is absent, and named in [`Operations::not_measured`].

mod incidents;
mod samples;
mod text;

use std::collections::HashMap;

use serde::Serialize;

pub use incidents::Incident;
pub use samples::OwnQueries;
pub use text::text;

use self::incidents::Incidents;
use self::samples::{SAMPLER, Samples};
use crate::journal::Entry;
use crate::journal::event::{Decision, Event, Outcome, Rows};
use crate::kernel::{Direction, RunId, Settlement, Span, Timestamp};
use crate::tools::analysis::number::share;

/// The kinds of entries that [`Fold::add`] looks at.
pub const KINDS: [&str; 13] = [
    "run_created",
    "rehearsal_began",
    "run_finished",
    "cancel_requested",
    "attempt_started",
    "step_succeeded",
    "approval_requested",
    "approval_decided",
    "change_settled",
    "doubt_settled",
    "unstuck",
    "override",
    "runs_sealed",
];

/// How far before the begin entries are read: what was in order before an incident was seen there.
pub const BEFORE: Span = Span::from_secs(3_600);

/// Detected within this: what operations are to reach.
const DETECT: u64 = 60;
/// Resolved within this: what operations are to reach.
const RESOLVE: u64 = 300;
/// The share of low-risk incidents that are healed without a person: what operations are to reach.
const ALONE: f64 = 0.75;

/// What `run --yes` and previews write as the reason of a decision that nobody made while the run waited.
const BY_ITSELF: [&str; 2] = ["run --yes", "preview"];

/// The figures.
#[derive(Clone, Debug, Serialize)]
pub struct Operations {
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Until then.
    pub until: Timestamp,
    /// What operations are to reach, beside what was measured.
    pub targets: Vec<Goal>,
    /// Runs that began in this time; rehearsals are not among them.
    pub runs: Runs,
    /// From the last look that found a number in order to the one that told people. An incident began
    /// between the two, so this is the most that detecting took.
    pub time_to_detect: Option<Spread>,
    /// From telling people to the look that found the number back in order.
    pub time_to_resolve: Option<Spread>,
    /// Healing.
    pub healing: Healing,
    /// Work that no person did.
    pub toil: Toil,
    /// Questions that were put to people.
    pub approvals: Approvals,
    /// What our own sessions cost the targets.
    pub own_queries: Option<OwnQueries>,
    /// Incidents that were detected in this time, the newest first.
    pub incidents: Vec<Incident>,
    /// What has no figure, and why.
    pub not_measured: Vec<Missing>,
}

/// What a figure is to reach, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What is measured.
    pub figure: &'static str,
    /// The target, for people.
    pub target: String,
    /// What was measured: seconds, or a share from 0 to 1.
    pub measured: Option<f64>,
    /// Whether it is met; absent when it was not measured.
    pub met: Option<bool>,
}

/// Runs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Runs {
    /// Those that began.
    pub started: u64,
    /// Those of them that a schedule or an event began.
    pub by_themselves: u64,
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that a person ended.
    pub cancelled: u64,
    /// Those that are not over.
    pub open: u64,
    /// The share of those that are over which succeeded, from 0 to 1.
    pub success_rate: Option<f64>,
}

/// How long something took, over several times; seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How often.
    pub count: usize,
    /// On the average: what the targets speak of.
    pub mean: f64,
    /// Half of them took no longer.
    pub median: f64,
    /// Nine of ten took no longer.
    pub p90: f64,
    /// The longest.
    pub most: f64,
}

/// Healing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Healing {
    /// Incidents that were detected.
    pub incidents: u64,
    /// Those that are over.
    pub resolved: u64,
    /// Those that a run of ours healed, and proved it by the number itself.
    pub healed: u64,
    /// Those of them to which no person did anything: an event or a schedule began the run, and nobody
    /// decided anything in it.
    pub healed_alone: u64,
    /// Incidents whose diagnosis named a remedy of low risk.
    pub low_risk: u64,
    /// Those of them that were healed and to which no person did anything.
    pub low_risk_alone: u64,
}

/// Work that no person did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Toil {
    /// Runs that changed something, ended well, and needed no person.
    pub runs_without_a_person: u64,
    /// The changes that they carried out.
    pub changes_without_a_person: u64,
    /// What people had to do: decisions, settled doubts, cancellations.
    pub deeds_of_people: u64,
    /// How long such a run takes by hand, as somebody said it; nothing in a journal knows.
    pub by_hand: Option<Span>,
    /// The hours that were saved, by that.
    pub saved_hours: Option<f64>,
}

/// Questions that were put to people.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Approvals {
    /// Those that were asked.
    pub asked: u64,
    /// Those that `--yes` answered.
    pub by_yes: u64,
    /// Those that a person approved.
    pub approved: u64,
    /// Those that a person rejected.
    pub rejected: u64,
    /// Those that nobody answered in time.
    pub expired: u64,
    /// Those that wait for an answer; what a run asked that has ended does not.
    pub open: u64,
    /// How long people took.
    pub latency: Option<Spread>,
}

/// A figure that is absent, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// The figure.
    pub figure: &'static str,
    /// Why, and what would give it.
    pub why: String,
}

/// What is known of a run.
#[derive(Default)]
struct Run {
    counts: bool,
    by_itself: bool,
    is_rehearsal: bool,
    outcome: Option<Outcome>,
    deeds: u64,
    applied: u64,
}

/// An approval that waits, by stream and step.
type Asked = HashMap<(String, String), Timestamp>;

/// Folds entries into [`Operations`].
pub struct Fold {
    since: Option<Timestamp>,
    runs: HashMap<String, Run>,
    incidents: Incidents,
    samples: Samples,
    approvals: Approvals,
    asked: Asked,
    latencies: Vec<f64>,
    sealed: u64,
}

/// Whether the rows that lie beside an entry are counted: samples of sessions are, and nothing else is.
pub fn wants_rows(entry: &Entry) -> bool {
    let Event::StepSucceeded { history: Rows::Apart { .. }, fact, .. } = &entry.event else {
        return false;
    };
    fact.as_ref().is_some_and(|found| found.name.tool == SAMPLER)
}

impl Fold {
    /// A fold of what began at `since` or later. Entries from [`BEFORE`] that on tell what was in order
    /// before.
    pub fn new(since: Option<Timestamp>) -> Self {
        Self {
            since,
            runs: HashMap::new(),
            incidents: Incidents::new(since),
            samples: Samples::default(),
            approvals: Approvals::default(),
            asked: Asked::new(),
            latencies: Vec::new(),
            sealed: 0,
        }
    }

    /// Takes the next entry.
    pub fn add(&mut self, entry: Entry) {
        let counts = self.since.is_none_or(|since| entry.at >= since);
        let Entry { stream, at, event, .. } = entry;
        match event {
            Event::RunCreated { target, cause, .. } => {
                self.incidents.run(&stream, &target);
                let run = self.run(&stream);
                (run.counts, run.by_itself) = (counts, cause.is_some());
            }
            Event::RehearsalBegan { .. } => self.run(&stream).is_rehearsal = true,
            Event::RunFinished { outcome, .. } => {
                // What an ended run asked has no answer any more.
                self.asked.retain(|(of, _), _| *of != stream);
                self.run(&stream).outcome = Some(outcome);
            }
            Event::AttemptStarted { step, arguments, .. } => {
                self.incidents.looks(stream, step, &arguments);
            }
            Event::StepSucceeded { step, output, history, fact, .. } => {
                if counts {
                    self.samples.add(&history.fetched());
                }
                let fact = fact.map(|found| found.name);
                self.incidents.output((stream, step), &output.value(), fact.as_ref(), at);
            }
            Event::ApprovalRequested { step, .. } if counts => {
                self.approvals.asked += 1;
                self.asked.insert((stream, step), at);
            }
            Event::ApprovalDecided { step, decision, reason, .. } => {
                self.decided(&(stream, step), decision, &reason, at);
            }
            Event::ChangeSettled { direction, settlement, .. } => {
                let is_done = direction == Direction::Do;
                let applied = is_done && matches!(settlement, Settlement::Applied { .. });
                self.run(&stream).applied += u64::from(applied);
            }
            Event::CancelRequested { .. }
            | Event::DoubtSettled { .. }
            | Event::Unstuck { .. }
            | Event::Override { .. } => self.run(&stream).deeds += u64::from(counts),
            Event::RunsSealed { runs, .. } => {
                let known = |run: &RunId| self.runs.get(run.as_str()).is_some_and(|run| run.counts);
                let of_these = runs.iter().filter(|one| known(&one.run));
                self.sealed += of_these.map(|one| one.events).sum::<u64>();
            }
            _ => {}
        }
    }

    fn run(&mut self, stream: &str) -> &mut Run {
        self.runs.entry(stream.to_owned()).or_default()
    }

    fn decided(&mut self, key: &(String, String), decision: Decision, reason: &str, at: Timestamp) {
        let asked_at = self.asked.remove(key);
        if decision == Decision::Approved && BY_ITSELF.contains(&reason) {
            self.approvals.by_yes += u64::from(asked_at.is_some());
            return;
        }
        self.run(&key.0).deeds += u64::from(decision != Decision::Expired);
        let Some(asked_at) = asked_at else { return };
        let count = match decision {
            Decision::Approved => &mut self.approvals.approved,
            Decision::Rejected => &mut self.approvals.rejected,
            Decision::Expired => &mut self.approvals.expired,
        };
        *count += 1;
        if decision != Decision::Expired {
            self.latencies.push(at.since(asked_at).as_secs_f64());
        }
    }

    /// The figures. `by_hand`: how long a person takes for what such a run does, where somebody says it.
    pub fn finish(mut self, until: Timestamp, by_hand: Option<Span>) -> Operations {
        let untouched =
            |stream: &str| self.runs.get(stream).is_some_and(|run| run.by_itself && run.deeds == 0);
        let incidents = self.incidents.finish(untouched);
        self.approvals.open = u64::try_from(self.asked.len()).unwrap_or(u64::MAX);
        self.approvals.latency = spread(self.latencies);
        let healing = healing(&incidents);
        let time_to_detect =
            spread(incidents.iter().filter_map(|one| one.detect_seconds).collect());
        let time_to_resolve =
            spread(incidents.iter().filter_map(|one| one.resolve_seconds).collect());
        let mut figures = Operations {
            since: self.since,
            until,
            targets: Vec::new(),
            runs: runs(self.runs.values()),
            time_to_detect,
            time_to_resolve,
            healing,
            toil: toil(self.runs.values(), by_hand),
            approvals: self.approvals,
            own_queries: self.samples.finish(),
            incidents,
            not_measured: Vec::new(),
        };
        figures.targets = figures.goals();
        figures.not_measured = figures.missing(self.sealed);
        figures
    }
}

impl Operations {
    fn goals(&self) -> Vec<Goal> {
        let within = |figure, spread: &Option<Spread>, most: u64| {
            let measured = spread.as_ref().map(|spread| spread.mean);
            let target = format!("under {}", Span::from_secs(most));
            let limit = std::time::Duration::from_secs(most).as_secs_f64();
            Goal { figure, target, measured, met: measured.map(|mean| mean < limit) }
        };
        let healing = &self.healing;
        let alone = (healing.low_risk > 0).then(|| share(healing.low_risk_alone, healing.low_risk));
        vec![
            within("mean time to detect", &self.time_to_detect, DETECT),
            within("mean time to resolve", &self.time_to_resolve, RESOLVE),
            Goal {
                figure: "low-risk incidents healed without a person",
                target: format!("at least {:.0} %", ALONE * 100.0),
                measured: alone,
                met: alone.map(|share| share >= ALONE),
            },
        ]
    }

    fn missing(&self, sealed: u64) -> Vec<Missing> {
        let mut missing = Vec::new();
        let mut add = |is_absent: bool, figure, why: &str| {
            if is_absent {
                missing.push(Missing { figure, why: why.to_owned() });
            }
        };
        add(self.runs.success_rate.is_none(), "success rate", "no run came to its end");
        let blind = self.incidents.iter().filter(|one| one.detect_seconds.is_none()).count();
        let unseen = format!(
            "of {blind} incidents no look before them is recorded; `watch_health` looks every minute"
        );
        if self.incidents.is_empty() {
            add(true, "time to detect", "no incident was detected");
        } else {
            add(blind > 0, "time to detect", &unseen);
        }
        add(
            self.time_to_resolve.is_none() && !self.incidents.is_empty(),
            "time to resolve",
            "no incident is over",
        );
        add(
            self.healing.low_risk == 0,
            "low-risk incidents healed without a person",
            "no diagnosis named a remedy of low risk",
        );
        add(
            self.toil.saved_hours.is_none(),
            "hours of toil saved",
            "nothing in a journal knows how long a person takes: say it with `--by-hand 15m`",
        );
        add(
            self.own_queries.is_none(),
            "cost of our own queries",
            "no sample of sessions is recorded; `sample_sessions` takes one every minute",
        );
        let cut = format!("the payloads of {sealed} events are gone: figures may be too low");
        add(sealed > 0, "what was sealed", &cut);
        missing
    }
}

fn runs<'a>(all: impl Iterator<Item = &'a Run>) -> Runs {
    let mut runs = Runs::default();
    for run in all.filter(|run| run.counts && !run.is_rehearsal) {
        runs.started += 1;
        runs.by_themselves += u64::from(run.by_itself);
        let count = match run.outcome {
            Some(Outcome::Succeeded) => &mut runs.succeeded,
            Some(Outcome::Cancelled) => &mut runs.cancelled,
            Some(Outcome::Failed) => &mut runs.failed,
            _ => &mut runs.open,
        };
        *count += 1;
    }
    let over = runs.succeeded + runs.failed + runs.cancelled;
    runs.success_rate = (over > 0).then(|| share(runs.succeeded, over));
    runs
}

fn toil<'a>(all: impl Iterator<Item = &'a Run>, by_hand: Option<Span>) -> Toil {
    let mut toil = Toil { by_hand, ..Toil::default() };
    for run in all.filter(|run| !run.is_rehearsal) {
        toil.deeds_of_people += run.deeds;
        let is_done = run.counts && run.outcome == Some(Outcome::Succeeded);
        if is_done && run.by_itself && run.deeds == 0 && run.applied > 0 {
            toil.runs_without_a_person += 1;
            toil.changes_without_a_person += run.applied;
        }
    }
    let runs = u32::try_from(toil.runs_without_a_person).unwrap_or(u32::MAX);
    toil.saved_hours = by_hand.map(|each| each.0.as_secs_f64() * f64::from(runs) / 3_600.0);
    toil
}

fn healing(incidents: &[Incident]) -> Healing {
    let count = |which: &dyn Fn(&Incident) -> bool| {
        u64::try_from(incidents.iter().filter(|one| which(one)).count()).unwrap_or(u64::MAX)
    };
    Healing {
        incidents: count(&|_| true),
        resolved: count(&|one| one.resolved_at.is_some()),
        healed: count(&|one| one.healed_by.is_some()),
        healed_alone: count(&|one| one.healed_alone),
        low_risk: count(&Incident::is_low_risk),
        low_risk_alone: count(&|one| one.is_low_risk() && one.healed_alone),
    }
}

/// How long several took; `None`: there are none.
fn spread(mut seconds: Vec<f64>) -> Option<Spread> {
    seconds.sort_by(f64::total_cmp);
    let most = *seconds.last()?;
    let count = u32::try_from(seconds.len()).unwrap_or(u32::MAX);
    // The nearest rank.
    let rank = |percent: usize| {
        let place = (seconds.len() * percent).div_ceil(100).max(1) - 1;
        seconds.get(place).copied().unwrap_or(most)
    };
    Some(Spread {
        count: seconds.len(),
        mean: seconds.iter().sum::<f64>() / f64::from(count),
        median: rank(50),
        p90: rank(90),
        most,
    })
}

#[cfg(test)]
mod tests;
