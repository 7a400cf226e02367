//! Remembers tries to heal, and says whether another one may be made.
//!
//! Reads: its own earlier answers, which are the record. No database.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! A workflow asks with `begin` before it heals, and tells how it ended with `healed` or `failed`. Soon
//! after a try no other is made, and when several in a row did not help none is made any more: what does
//! not help is for a person. A try of which nobody told how it ended (the process died, the run was
//! cancelled) did not help.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Failure, Risk, Span, Timestamp};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(RecordHealing));

struct RecordHealing;

/// What is tried, and how patient to be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What is wrong, such as the metric.
    issue: String,
    /// `begin` before a try, `healed` or `failed` after it.
    phase: Phase,
    /// How long no other try is made after one.
    #[serde(default = "ten_minutes")]
    cool_down: Span,
    /// How many tries in a row may fail.
    #[serde(default = "three")]
    most_failures: u32,
    /// Tries that are older do not count.
    #[serde(default = "a_day")]
    within: Span,
    /// The number before or after the try, for the record.
    #[serde(default)]
    value: Option<f64>,
    /// What was done about it, for the record.
    #[serde(default)]
    action: Option<String>,
}

const fn ten_minutes() -> Span {
    Span::from_secs(600)
}

const fn three() -> u32 {
    3
}

const fn a_day() -> Span {
    Span::from_secs(24 * 3_600)
}

/// Where a try stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// It is about to begin.
    Begin,
    /// It helped.
    Healed,
    /// It did not help.
    Failed,
}

/// What is remembered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Output {
    /// What is wrong.
    issue: String,
    /// Where the try stands.
    phase: Phase,
    /// Whether the try may be made.
    allowed: bool,
    /// Why, or why not.
    why: String,
    /// Tries in a row that did not help, before this one.
    failures: u32,
    /// When the last try was made.
    last_try: Option<Timestamp>,
    /// The number before or after the try.
    value: Option<f64>,
    /// What was done about it.
    action: Option<String>,
    /// When this was.
    at: Timestamp,
}

impl ReadTool for RecordHealing {
    const META: ToolMeta = ToolMeta {
        name: "record_healing",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Remembers tries to heal, and says whether another one may be made",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    // Three answers for each try, over all issues of a target.
    const EARLIER: u32 = 300;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        Ok(judge(params, cx.earlier, cx.clock.now()))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let status = match (output.phase, output.allowed) {
            (Phase::Begin, true) => return Vec::new(),
            (Phase::Begin, false) => "refused",
            (Phase::Healed, _) => "healed",
            (Phase::Failed, _) => "failed",
        };
        let row = serde_json::json!({
            "sop": "run_sop",
            "metric_name": output.issue,
            "after_value": output.value,
            "status": status,
            "details": { "why": output.why, "action": output.action, "failures": output.failures },
        });
        vec![HistoryRow { table: "sop_executions".to_owned(), row }]
    }
}

fn judge(params: Params, earlier: &[Value], now: Timestamp) -> Output {
    let of_issue = earlier
        .iter()
        .filter_map(|output| serde_json::from_value::<Output>(output.clone()).ok())
        .filter(|output| output.issue == params.issue && now.since(output.at) <= params.within.0);
    let (mut failures, mut last_try, mut helped) = (0, None, false);
    for output in of_issue {
        match output.phase {
            Phase::Healed => helped = true,
            Phase::Begin if output.allowed => {
                last_try = last_try.or(Some(output.at));
                failures += u32::from(!helped);
            }
            Phase::Begin | Phase::Failed => {}
        }
    }
    let (allowed, why) = verdict(&params, failures, last_try, now);
    Output {
        issue: params.issue,
        phase: params.phase,
        allowed,
        why,
        failures,
        last_try,
        value: params.value,
        action: params.action,
        at: now,
    }
}

fn verdict(
    params: &Params,
    failures: u32,
    last_try: Option<Timestamp>,
    now: Timestamp,
) -> (bool, String) {
    match (params.phase, last_try) {
        (Phase::Healed, _) => (true, "the try helped".to_owned()),
        (Phase::Failed, _) => (false, "the try did not help".to_owned()),
        (Phase::Begin, _) if failures >= params.most_failures => {
            (false, format!("{failures} tries in a row did not help: a person is needed"))
        }
        (Phase::Begin, Some(last)) if now.since(last) < params.cool_down.0 => {
            let ago = Span::from_secs(now.since(last).as_secs());
            (false, format!("the last try was {ago} ago, less than {}", params.cool_down))
        }
        (Phase::Begin, _) => (true, format!("{failures} tries in a row did not help so far")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Answers, the newest first, as the journal gives them.
    struct Record(Vec<Value>);

    impl Record {
        fn ask(&mut self, issue: &str, phase: &str, minute: u64) -> Output {
            let params = json!({"issue": issue, "phase": phase});
            let now = Timestamp::from_millis(0).plus(std::time::Duration::from_mins(minute));
            let output = judge(serde_json::from_value(params).unwrap(), &self.0, now);
            self.0.insert(0, serde_json::to_value(&output).unwrap());
            output
        }
    }

    #[test]
    fn tries_are_apart_and_end() {
        let mut record = Record(Vec::new());
        assert!(record.ask("bloat", "begin", 0).allowed);
        record.ask("bloat", "failed", 1);
        let soon = record.ask("bloat", "begin", 5);
        assert!(!soon.allowed && soon.why.contains("5m ago"), "{soon:?}");
        assert!(record.ask("locks", "begin", 5).allowed, "another issue");
        assert!(record.ask("bloat", "begin", 11).allowed);
        // Nobody told how the second ended.
        assert!(record.ask("bloat", "begin", 22).allowed);
        let third = record.ask("bloat", "begin", 40);
        assert!(!third.allowed && third.failures == 3, "{third:?}");
        assert!(third.why.contains("a person"));
        // A refusal is no try, and a day later the record is clean.
        assert_eq!(record.ask("bloat", "begin", 50).failures, 3);
        assert!(record.ask("bloat", "begin", 24 * 60 + 41).allowed);
    }

    #[test]
    fn what_helped_wipes_the_record() {
        let mut record = Record(Vec::new());
        for minute in [0, 20] {
            assert!(record.ask("bloat", "begin", minute).allowed);
            record.ask("bloat", "failed", minute + 1);
        }
        assert!(record.ask("bloat", "begin", 40).allowed);
        record.ask("bloat", "healed", 41);
        assert!(
            !record.ask("bloat", "begin", 45).allowed,
            "also what helped is not done at once again"
        );
        let next = record.ask("bloat", "begin", 60);
        assert!(next.allowed && next.failures == 0, "{next:?}");
    }

    #[test]
    fn the_record_fits_its_table() {
        let mut record = Record(Vec::new());
        let failed = record.ask("bloat", "failed", 0);
        let rows = RecordHealing.history(&failed);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
        assert_eq!(rows[0].row["status"], "failed");
    }
}
