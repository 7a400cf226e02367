use serde_json::{Value, json};

use super::*;
use crate::journal::event::{ApprovalRequest, Compensation, Fact, Found, Outcome, Principal, Rows};
use crate::journal::occasion::Cause;
use crate::kernel::Target;
use crate::tools::tool::HistoryRow;

const PLACE: &str = "local -/-/-";

/// A journal that is written by hand, one entry after the other.
struct Log {
    fold: Fold,
    position: u64,
}

impl Log {
    fn new(since: Option<u64>) -> Self {
        Self { fold: Fold::new(since.map(at)), position: 0 }
    }

    fn add(&mut self, run: &str, second: u64, event: Event) {
        self.position += 1;
        let (position, seq) = (self.position, self.position);
        self.fold.add(Entry { position, stream: run.to_owned(), seq, at: at(second), event });
    }

    fn begins(&mut self, run: &str, second: u64, by_itself: bool) {
        let cause = by_itself.then(|| {
            let (trigger, position, depth) = ("t".to_owned(), 1, 1);
            Box::new(Cause::Event { trigger, position, event: Value::Null, depth })
        });
        let created = Event::RunCreated {
            plan: crate::kernel::Digest::of_bytes(b""),
            workflow: "w".to_owned(),
            target: Target::default(),
            key: None,
            by: Principal { name: "ann".to_owned(), from: "desk".to_owned() },
            yes: false,
            forked_from: None,
            cause,
        };
        self.add(run, second, created);
    }

    /// A look at one number: what alerts came to.
    fn look(&mut self, second: u64, metric: &str, state: &str, turns: &[(&str, &str)]) {
        let metrics = json!({ "metrics": { metric: { "value": 1 } } });
        let step = "evaluate".to_owned();
        self.add(
            "looks",
            second,
            Event::AttemptStarted { step: step.clone(), attempt: 1, arguments: metrics },
        );
        let turns: Vec<Value> = turns
            .iter()
            .map(|(turn, level)| json!({ "metric": metric, "turn": turn, "level": level }))
            .collect();
        let silenced = (state == "silenced").then_some("load test");
        let state = if state == "silenced" { "firing" } else { state };
        let output = json!({
            "transitions": turns, "at": at(second),
            "alerts": [{ "metric": metric, "state": state, "silenced": silenced }],
        });
        self.succeeded("looks", second, output, Some("evaluate_alert_thresholds"));
    }

    fn succeeded(&mut self, run: &str, second: u64, output: Value, tool: Option<&str>) {
        let name = |tool: &str| Fact { tool: tool.to_owned(), place: PLACE.to_owned() };
        let fact = tool.map(|tool| Found::new(name(tool), None));
        let output = output.into();
        let (step, history, seen) = ("evaluate".to_owned(), Rows::default(), Vec::new());
        self.add(run, second, Event::StepSucceeded { step, output, history, seen, fact });
    }

    fn finish(self) -> Operations {
        self.fold.finish(at(100_000), None)
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_millis(0).plus(std::time::Duration::from_secs(second))
}

#[test]
fn detecting_takes_at_most_the_time_since_the_number_was_last_in_order() {
    let mut log = Log::new(None);
    log.look(0, "locks", "normal", &[]);
    log.look(60, "locks", "normal", &[]);
    // A look at something else says nothing about it.
    log.look(90, "bloat", "normal", &[]);
    log.look(120, "locks", "pending", &[]);
    log.look(180, "locks", "firing", &[("fired", "warning")]);
    log.look(240, "locks", "firing", &[("worsened", "critical")]);
    log.look(300, "locks", "firing", &[("eased", "warning")]);
    log.look(400, "locks", "normal", &[("resolved", "normal")]);
    let figures = log.finish();
    let [one] = figures.incidents.as_slice() else { panic!("{figures:#?}") };
    assert_eq!((one.in_order_at, one.detected_at), (Some(at(60)), at(180)));
    assert_eq!((one.detect_seconds, one.resolve_seconds), (Some(120.0), Some(220.0)));
    assert_eq!((one.level.as_str(), one.healed_alone), ("critical", false));
    let [detect, resolve, alone] = figures.targets.as_slice() else { panic!() };
    assert_eq!((detect.met, resolve.met, alone.met), (Some(false), Some(true), None));
}

#[test]
fn a_silence_is_no_delay_and_an_unseen_begin_is_not_measured() {
    let mut log = Log::new(None);
    log.look(0, "locks", "normal", &[]);
    log.look(3_600, "locks", "silenced", &[]);
    log.look(3_630, "locks", "firing", &[("fired", "critical")]);
    log.look(10, "bloat", "firing", &[("fired", "critical")]);
    // What was told before the journal that is read begins is no incident of this time.
    log.look(20, "old", "normal", &[("resolved", "normal")]);
    let figures = log.finish();
    let seconds: Vec<_> = figures.incidents.iter().map(|one| one.detect_seconds).collect();
    assert_eq!(seconds, [None, Some(30.0)]);
    assert!(figures.not_measured.iter().any(|one| one.figure == "time to detect"));
    assert_eq!(figures.time_to_resolve, None);
}

#[test]
fn only_what_nobody_touched_is_healed_without_a_person() {
    for (by_itself, reason, alone) in
        [(true, None, true), (false, None, false), (true, Some("looks good"), false)]
    {
        let mut log = Log::new(None);
        log.look(0, "locks", "normal", &[]);
        log.look(60, "locks", "firing", &[("fired", "critical")]);
        log.begins("heals", 61, by_itself);
        let remedy = json!({ "remedy": { "risk": "low" } });
        let diagnosis = json!({ "metric": "locks", "cause": "queue", "causes": [remedy] });
        log.succeeded("heals", 62, diagnosis, None);
        if let Some(reason) = reason {
            let decided = Event::ApprovalDecided {
                step: "heal".to_owned(),
                digest: crate::kernel::Digest::of_bytes(b""),
                decision: Decision::Approved,
                by: Principal { name: "ann".to_owned(), from: "desk".to_owned() },
                reason: reason.to_owned(),
            };
            log.add("heals", 63, decided);
        }
        let healed = json!({ "issue": "locks", "phase": "healed" });
        log.succeeded("heals", 64, healed, Some("record_healing"));
        log.look(120, "locks", "normal", &[("resolved", "normal")]);
        let figures = log.finish();
        let one = &figures.incidents[0];
        assert_eq!(one.healed_alone, alone, "{by_itself} {reason:?}");
        assert_eq!((one.cause.as_deref(), one.is_low_risk()), (Some("queue"), true));
        assert_eq!(figures.healing.healed, 1);
        assert_eq!(figures.targets[2].met, Some(alone));
    }
}

#[test]
fn what_an_ended_run_asked_is_open_no_more() {
    let mut log = Log::new(None);
    for run in ["ends", "waits"] {
        log.begins(run, 1, false);
        let request = ApprovalRequest {
            digest: crate::kernel::Digest::of_bytes(b""),
            prompt: String::new(),
            covers: vec!["heal".to_owned()],
            risk: crate::kernel::Risk::High,
            reasons: Vec::new(),
            expires_at: at(1_000),
            show: Value::Null,
            rehearsed_within: None,
            direction: Direction::Do,
        };
        log.add(run, 2, Event::ApprovalRequested { step: "heal".to_owned(), request });
    }
    let (outcome, compensation) = (Outcome::Cancelled, Compensation::None);
    log.add("ends", 3, Event::RunFinished { outcome, compensation, outputs: Value::Null });
    let approvals = log.finish().approvals;
    assert_eq!((approvals.asked, approvals.open), (2, 1));
}

#[test]
fn what_began_before_is_not_counted_and_still_explains() {
    let mut log = Log::new(Some(100));
    log.begins("early", 10, true);
    log.look(90, "locks", "normal", &[]);
    log.look(110, "locks", "firing", &[("fired", "warning")]);
    log.begins("late", 120, true);
    let figures = log.finish();
    assert_eq!((figures.runs.started, figures.runs.open), (1, 1));
    assert_eq!(figures.incidents[0].detect_seconds, Some(20.0));
}

#[test]
fn the_session_that_takes_a_sample_is_left_out() {
    let row = |application: &str, state: &str, connections: u64| HistoryRow {
        table: "connection_samples".to_owned(),
        row: json!({ "application_name": application, "state": state, "connections": connections }),
    };
    let mut samples = Samples::default();
    samples.add(&[row("lakeops", "active", 2), row("web", "active", 3), row("web", "idle", 4)]);
    samples.add(&[row("lakeops", "active", 1), row("web", "idle", 4)]);
    samples.add(&[]);
    let own = samples.finish().unwrap();
    assert_eq!(own.samples, 2);
    assert!((own.active - 0.5).abs() < 1e-9 && (own.sessions - 0.5).abs() < 1e-9, "{own:?}");
    assert_eq!(own.share_of_active, Some(0.25));
    assert_eq!(Samples::default().finish(), None);
}

#[test]
fn a_spread_is_by_nearest_rank() {
    assert_eq!(spread(Vec::new()), None);
    let found = spread((1..=10).rev().map(f64::from).collect()).unwrap();
    let expected = Spread { count: 10, mean: 5.5, median: 5.0, p90: 9.0, most: 10.0 };
    assert_eq!(found, expected);
}
