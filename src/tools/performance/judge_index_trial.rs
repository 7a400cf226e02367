//! Says of advice that was tried on a branch whether it did there what it is meant to do, and attaches the
//! evidence to it.
//!
//! Reads: nothing but what was measured on the branch before and after.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measure_table_workload::WRITES;
use crate::kernel::{Failure, Risk};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::recommendation::{Recommendation, history_row};
use crate::tools::analysis::trial::Measurement;
use crate::tools::analysis::verification::{Trial, Verdict, Verification, judge};
use crate::tools::analysis::write_cost::write_costs;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(JudgeIndexTrial));

struct JudgeIndexTrial;

/// What was seen.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The advice that was tried, all of it together.
    recommendations: Vec<Recommendation>,
    /// The output of `collect_table_workload`.
    workload: Workload,
    /// The branch; absent when none was made.
    #[serde(default)]
    branch: Option<String>,
    /// The output of `measure_table_workload` before the advice was followed there.
    #[serde(default)]
    before: Value,
    /// The output of `apply_index_recommendations` there.
    #[serde(default)]
    followed: Value,
    /// The output of `measure_table_workload` afterwards.
    #[serde(default)]
    after: Value,
    /// The outputs of `experiment_sql`, one for each of the `write_trials`.
    #[serde(default)]
    writes: Value,
    /// The least share of time that a new index must save.
    #[serde(default = "a_fifth")]
    min_gain: f64,
}

const fn a_fifth() -> f64 {
    0.2
}

/// Of the workload, what the judgement needs.
#[derive(Deserialize, JsonSchema)]
struct Workload {
    /// Why no branch can be made.
    #[serde(default)]
    why_not: Option<String>,
    /// What could not be seen of it.
    #[serde(default)]
    not_measured: Vec<NotMeasured>,
}

/// What following advice took, by its fingerprint.
#[derive(Deserialize)]
struct Followed {
    recommendations: Vec<Done>,
}

#[derive(Deserialize)]
struct Done {
    fingerprint: String,
    duration_ms: Option<u64>,
}

/// The judgement.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The advice, each with its `verification`.
    recommendations: Vec<Recommendation>,
    /// How many did what they are meant to do.
    verified: u64,
    /// How many were tried and did not.
    refuted: u64,
    /// Of how many nobody can tell.
    not_verified: u64,
}

impl ReadTool for JudgeIndexTrial {
    const META: ToolMeta = ToolMeta {
        name: "judge_index_trial",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Says whether advice about indexes held on a branch, with the evidence",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, _: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        Ok(judged(params))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.recommendations.iter().map(history_row).collect()
    }
}

fn judged(params: Params) -> Output {
    let before = given::<Measurement>(params.before);
    let after = given::<Measurement>(params.after);
    let measured = params.branch.zip(before).zip(after);
    let mut recommendations = params.recommendations.clone();
    if let Some(((branch, mut before), after)) = measured {
        // What was hidden where the workload was recorded was hidden on the branch, too.
        before.not_measured = params.workload.not_measured;
        let followed = given::<Followed>(params.followed);
        let built: BTreeMap<String, u64> = followed
            .into_iter()
            .flat_map(|followed| followed.recommendations)
            .filter_map(|done| Some((done.fingerprint, done.duration_ms?)))
            .collect();
        let experiments = params.writes.as_array().cloned().unwrap_or_default();
        let writes = write_costs(&after.write_trials, &experiments, WRITES);
        let trial = Trial {
            branch: &branch,
            advice: &params.recommendations,
            before: &before,
            after: &after,
            built: &built,
            writes: &writes,
            min_gain: params.min_gain,
        };
        for advice in &mut recommendations {
            attach(advice, judge(&trial, advice));
        }
    } else {
        let why = params.workload.why_not;
        let why = why.unwrap_or_else(|| "the trial did not come to an end".to_owned());
        for advice in &mut recommendations {
            attach(advice, Verification::none(why.clone()));
        }
    }
    let count = |wanted: Verdict| {
        let verdicts = recommendations.iter().filter_map(|it| it.verification.as_ref());
        verdicts.filter(|it| it.verdict == wanted).count() as u64
    };
    let (verified, refuted) = (count(Verdict::Verified), count(Verdict::Refuted));
    Output { verified, refuted, not_verified: count(Verdict::NotVerified), recommendations }
}

fn attach(advice: &mut Recommendation, verification: Verification) {
    advice.verified = verification.verdict == Verdict::Verified;
    advice.verification = Some(verification);
}

/// The output of a step; `None` when it was skipped or failed.
fn given<T: DeserializeOwned>(output: Value) -> Option<T> {
    serde_json::from_value(output).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::analysis::recommendation::tests::advice;

    fn of(more: &Value) -> Output {
        let mut params = json!({"recommendations": [advice("a")], "workload": {}});
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        judged(serde_json::from_value(params).unwrap())
    }

    #[test]
    fn what_was_not_tried_says_why() {
        let none = of(&json!({"workload": {"why_not": "no branch"}, "before": {"skipped": true}}));
        assert_eq!((none.verified, none.not_verified), (0, 1));
        let advice = &none.recommendations[0];
        assert!(!advice.verified);
        assert_eq!(advice.verification.as_ref().unwrap().told(), "not verified: no branch");
        let broken = of(&json!({"branch": "tmp-1", "before": {"skipped": true}}));
        let told = broken.recommendations[0].verification.as_ref().unwrap().told();
        assert_eq!(told, "not verified: the trial did not come to an end");
    }

    #[test]
    fn evidence_is_attached_and_kept() {
        let empty =
            json!({"statements": [], "indexes": [], "write_trials": [], "not_measured": []});
        let there = json!({"index": "public.t_a_idx", "size_bytes": 8192, "is_valid": true});
        let mut before = empty.clone();
        before["indexes"] = json!([there]);
        let followed = json!({"recommendations": [{"fingerprint": "a", "duration_ms": 12}]});
        let seen =
            json!({"branch": "tmp-1", "before": before, "after": empty, "followed": followed});
        let output = of(&seen);
        assert_eq!(output.verified, 1);
        let evidence = output.recommendations[0].verification.clone().unwrap();
        assert_eq!((evidence.bytes_before, evidence.bytes_after), (Some(8192), None));
        assert_eq!((evidence.built_ms, evidence.branch.as_deref()), (Some(12), Some("tmp-1")));
        let rows = JudgeIndexTrial.history(&output);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
        assert_eq!(rows[0].row["evidence"]["verified"], true);
        // Statements that are hidden may use it.
        let mut hidden = seen;
        hidden["workload"] =
            json!({"not_measured": [{"what": "x", "why": "hidden", "needs": null}]});
        assert_eq!(of(&hidden).not_verified, 1);
    }
}
