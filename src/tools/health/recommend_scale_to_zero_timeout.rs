//! Says after how long without use a compute should be suspended, with what each choice costs.
//!
//! Reads: the history: when `sample_sessions` looked, what it saw of the branch, when statements ran, when the
//! server was started; the endpoint's present timeout. No database, and so no compute is woken.
//! Changes: nothing.
//! Undo: nothing to undo.
//!
//! A compute is in use when a session of others does something, or statements of others ran since the tick
//! before. Where too little was observed, or nothing is saved, that is the answer.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Bind, Failure, Query, Risk, Span, Timestamp};
use crate::lakebase::{self, BranchName};
use crate::tools::analysis::suspension::{Choice, Look, Seen, Use, Verdict, Weights, advise};
use crate::tools::branching::place;
use crate::tools::context::{ReadContext, ReadHistory};
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(RecommendScaleToZeroTimeout));

/// The timeouts that are weighed, in seconds: the platform takes 60 s to 7 d.
const CANDIDATES: [f64; 9] =
    [60.0, 120.0, 300.0, 600.0, 900.0, 1_800.0, 3_600.0, 14_400.0, 86_400.0];

struct RecommendScaleToZeroTimeout;

/// How it is weighed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// How many days of the history are looked at.
    #[serde(default = "fourteen")]
    #[schemars(range(min = 1, max = 90))]
    days: u32,
    /// The present timeout, where no workspace says it; `0s`: never suspended.
    #[serde(default)]
    current: Option<Span>,
    /// How long a cold start takes: an assumption, as it is not measured.
    #[serde(default = "half_a_second")]
    cold_start: Span,
    /// How much compute time one cold start is worth to whoever waits for it.
    #[serde(default = "five_minutes")]
    cold_start_worth: Span,
    /// How many compute hours a day a change must save, cold starts weighed.
    #[serde(default = "a_quarter")]
    least_saving: f64,
    /// How many days must have been observed.
    #[serde(default = "three")]
    least_days: f64,
    /// Also recommends that a default or protected branch is suspended that is not now.
    #[serde(default)]
    even_production: bool,
}

const fn fourteen() -> u32 {
    14
}

const fn half_a_second() -> Span {
    Span(std::time::Duration::from_millis(500))
}

const fn five_minutes() -> Span {
    Span::from_secs(300)
}

const fn a_quarter() -> f64 {
    0.25
}

const fn three() -> f64 {
    3.0
}

/// How many gaps must have been seen from begin to end.
const LEAST_GAPS: usize = 20;

/// What is recommended, and what each choice costs.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// What follows: `change`, `keep` or `too_little_data`.
    verdict: Verdict,
    /// The timeout that is recommended: `5m`, `never`; absent: no change.
    recommended: Option<String>,
    /// The present timeout.
    current: String,
    /// Why.
    reason: String,
    /// What each timeout costs, the shortest first.
    choices: Vec<Choice>,
    /// How many days were observed: time in which nobody looked does not count.
    observed_days: f64,
    /// How far apart the looks were, in seconds: what is shorter cannot be seen.
    resolution_seconds: f64,
    /// Gaps between uses that were seen from begin to end.
    gaps: usize,
    /// Starts of the server that the history shows, a day; absent where it shows none.
    starts_seen_per_day: Option<f64>,
    /// Compute units of the endpoint while it is awake and idle; absent where no workspace says it.
    min_cu: Option<f64>,
    /// How long a cold start was taken to last, in seconds: not measured.
    assumed_cold_start_seconds: f64,
}

impl ReadTool for RecommendScaleToZeroTimeout {
    const META: ToolMeta = ToolMeta {
        name: "recommend_scale_to_zero_timeout",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Says after how long without use a compute should be suspended, with the trade-off",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let present = Present::of(cx, params.current).await?;
        let history = cx.history()?;
        let day = i64::from(params.days) * 86_400_000;
        let since = Timestamp::from_millis(cx.clock.now().as_millis() - day);
        let place = Place::of(cx, since);
        let looks = looks(history, &place).await?;
        let starts = starts(history, &place).await?;
        Ok(judge(&Use::of(&looks), starts, &present, &params))
    }
}

/// How the endpoint is now.
struct Present {
    /// Seconds; `None`: never.
    timeout: Option<f64>,
    min_cu: Option<f64>,
    /// Whether people rely on it being there.
    is_production: bool,
}

impl Present {
    async fn of(cx: &ReadContext<'_>, said: Option<Span>) -> Result<Self, Failure> {
        let seconds = |span: Span| (!span.0.is_zero()).then_some(span.0.as_secs_f64());
        let Some(api) = cx.workspace else {
            let Some(said) = said else {
                let text = "no workspace says what the present timeout is";
                return Err(Failure::permanent("suspension::no_endpoint", text)
                    .with_help("name it: `current: 5m`, or `0s` for never"));
            };
            return Ok(Self { timeout: seconds(said), min_cu: None, is_production: false });
        };
        let name = BranchName::new(place::project(cx.target)?, place::branch(None, cx.target)?);
        let Some(endpoint) = lakebase::read_write_endpoint(api, &name).await? else {
            let text = format!("{name} has no compute that writes");
            return Err(Failure::permanent("suspension::no_endpoint", text));
        };
        let branch = lakebase::find_branch(api, &name.project, &name.branch).await?;
        let timeout = match said {
            Some(said) => seconds(said),
            None => endpoint.status.suspend_timeout_duration.map(|timeout| timeout.as_secs_f64()),
        };
        Ok(Self {
            timeout,
            min_cu: endpoint.status.autoscaling_limit_min_cu,
            is_production: branch
                .is_some_and(|branch| branch.status.default || branch.status.is_protected),
        })
    }
}

/// Which rows of the history are meant.
struct Place {
    project: String,
    branch: String,
    since: Timestamp,
}

impl Place {
    fn of(cx: &ReadContext<'_>, since: Timestamp) -> Self {
        let part =
            |part: &Option<String>, default: &str| part.as_deref().unwrap_or(default).to_owned();
        Self {
            project: part(&cx.target.project, ""),
            branch: part(&cx.target.branch, "main"),
            since,
        }
    }

    fn binds(&self) -> Vec<Bind> {
        vec![
            Bind::Timestamp(self.since),
            Bind::Text(self.project.clone()),
            Bind::Text(self.branch.clone()),
        ]
    }
}

/// When somebody looked: runs that are recorded, with the branches that they found awake.
const RUNS: &str = "select started_at as at, outputs from workflow_runs \
     where workflow = 'sample_sessions' and outcome = 'succeeded' and started_at >= $1 \
     and ($2 = '' or project_id = $2) and $3 <> ''";

/// What the looks saw: whether a session of others did anything.
const SAMPLES: &str = "select snapshot_timestamp as at, \
     max(case when coalesce(application_name, '') <> 'lakeops' \
       and coalesce(state, '') in ('active', 'idle in transaction', 'fastpath function call') \
       then 1 else 0 end) as used \
     from connection_samples where snapshot_timestamp >= $1 \
     and ($2 = '' or project_id = $2) and branch_id = $3 group by snapshot_timestamp";

/// When statements of others had run. Roles that only we use are not others.
const STATEMENTS: &str = "select snapshot_timestamp as at from pg_stat_history \
     where snapshot_timestamp >= $1 and ($2 = '' or project_id = $2) and branch_id = $3 \
     and calls_delta > 0 and coalesce(user_name, '') not in (\
       select coalesce(user_name, '') from connection_samples where snapshot_timestamp >= $1 \
       and branch_id = $3 group by 1 \
       having min(coalesce(application_name, '')) = 'lakeops' \
       and max(coalesce(application_name, '')) = 'lakeops') \
     group by snapshot_timestamp";

/// How often the server was started.
const STARTS: &str = "select count(distinct postmaster_start) as starts, \
     min(snapshot_timestamp) as first, max(snapshot_timestamp) as last from pg_stat_statements_info \
     where snapshot_timestamp >= $1 and ($2 = '' or project_id = $2) and branch_id = $3";

async fn looks(history: &dyn ReadHistory, place: &Place) -> Result<Vec<Look>, Failure> {
    let ask = async |text: &str| history.query(&Query::with_binds(text, place.binds())).await;
    let runs = ask(RUNS).await?;
    let samples = ask(SAMPLES).await?;
    let statements = ask(STATEMENTS).await?;
    Ok(joined(&runs, &samples, &statements, &place.branch))
}

fn at(row: &Value) -> Option<i64> {
    Timestamp::parse(row["at"].as_str()?).map(Timestamp::as_millis)
}

/// One look for each run, told by what was sampled until the next one; others stand for themselves.
fn joined(runs: &[Value], samples: &[Value], statements: &[Value], branch: &str) -> Vec<Look> {
    let mut looks: BTreeMap<i64, Seen> = BTreeMap::new();
    for run in runs {
        let outputs = match &run["outputs"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        let awake = outputs["branches"].as_array();
        let is_awake = awake.is_some_and(|awake| awake.iter().any(|name| name == branch));
        if let Some(at) = at(run) {
            looks.insert(at, if is_awake { Seen::Idle } else { Seen::Asleep });
        }
    }
    let used = samples.iter().map(|row| (at(row), row["used"].as_i64() == Some(1)));
    for (at, is_used) in used.chain(statements.iter().map(|row| (at(row), true))) {
        let Some(at) = at else { continue };
        // The clocks of the two machines may differ a little.
        let own = looks.range(..=at + 5_000).next_back().map(|(at, _)| *at);
        let near = own.filter(|own| at - own < 60_000);
        let seen = looks.entry(near.unwrap_or(at)).or_insert(Seen::Idle);
        if is_used {
            *seen = Seen::Used;
        } else if *seen == Seen::Asleep {
            *seen = Seen::Idle;
        }
    }
    looks.into_iter().map(|(at, seen)| Look { at: seconds(at), seen }).collect()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of this millennium are exact")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

async fn starts(history: &dyn ReadHistory, place: &Place) -> Result<Option<f64>, Failure> {
    let rows = history.query(&Query::with_binds(STARTS, place.binds())).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let moment = |name: &str| row[name].as_str().and_then(Timestamp::parse);
    let (Some(first), Some(last)) = (moment("first"), moment("last")) else { return Ok(None) };
    let days = last.since(first).as_secs_f64() / 86_400.0;
    let starts = row["starts"].as_f64().unwrap_or(0.0);
    // The one that was running when the time began is no start that was seen.
    Ok((days > 0.0 && starts > 0.0).then(|| (starts - 1.0) / days))
}

fn judge(found: &Use, starts: Option<f64>, present: &Present, params: &Params) -> Output {
    let weights = Weights {
        cold_start_worth: params.cold_start_worth.0.as_secs_f64(),
        cold_start_seconds: params.cold_start.0.as_secs_f64(),
        least_saving: params.least_saving,
        least_days: params.least_days,
        least_gaps: LEAST_GAPS,
    };
    let mut advice = advise(found, present.timeout, &CANDIDATES, &weights);
    let suspends = advice.recommended.as_ref().is_some_and(|one| one.timeout_seconds.is_some());
    if present.timeout.is_none() && present.is_production && suspends && !params.even_production {
        advice.verdict = Verdict::Keep;
        advice.recommended = None;
        advice.reason = format!(
            "a branch that people rely on stays awake unless `even_production` says otherwise; it would be {}",
            advice.reason
        );
    }
    Output {
        verdict: advice.verdict,
        recommended: advice.recommended.map(|one| named(one.timeout_seconds)),
        current: named(present.timeout),
        reason: advice.reason,
        choices: advice.choices,
        observed_days: found.observed / 86_400.0,
        resolution_seconds: found.resolution,
        gaps: found.gaps.len(),
        starts_seen_per_day: starts,
        min_cu: present.min_cu,
        assumed_cold_start_seconds: weights.cold_start_seconds,
    }
}

fn named(timeout: Option<f64>) -> String {
    timeout.map_or_else(
        || "never".to_owned(),
        |seconds| Span(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e9))).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(minute: i64, branches: &[&str]) -> Value {
        let at = Timestamp::from_millis(minute * 60_000);
        json!({"at": at, "outputs": json!({"branches": branches}).to_string()})
    }

    fn sample(minute: i64, used: i64) -> Value {
        json!({"at": Timestamp::from_millis(minute * 60_000 + 900), "used": used})
    }

    #[test]
    fn a_run_without_a_sample_found_it_asleep_or_left_it_alone() {
        let runs = [run(1, &["main"]), run(2, &["main"]), run(3, &["other"]), run(4, &["main"])];
        let samples = [sample(1, 1), sample(4, 0)];
        let statements = [json!({"at": Timestamp::from_millis(4 * 60_000 + 2_000)})];
        let seen: Vec<Seen> =
            joined(&runs, &samples, &[], "main").iter().map(|look| look.seen).collect();
        assert_eq!(seen, [Seen::Used, Seen::Idle, Seen::Asleep, Seen::Idle]);
        let seen = joined(&runs, &samples, &statements, "main").last().unwrap().seen;
        assert_eq!(seen, Seen::Used, "a statement that no sample caught");
    }

    #[test]
    fn what_people_rely_on_is_not_put_to_sleep_unasked() {
        let looks: Vec<Look> = (0..7 * 1440)
            .map(|minute| {
                let is_used = (540..1020).contains(&(minute % 1440)) && minute % 2 == 0;
                let seen = if is_used { Seen::Used } else { Seen::Idle };
                Look { at: f64::from(minute) * 60.0, seen }
            })
            .collect();
        let found = Use::of(&looks);
        let params = |extra: Value| serde_json::from_value::<Params>(extra).unwrap();
        let present = |is_production| Present { timeout: None, min_cu: Some(1.0), is_production };
        let output = judge(&found, None, &present(false), &params(json!({})));
        assert_eq!((output.verdict, output.recommended.as_deref()), (Verdict::Change, Some("2m")));
        let output = judge(&found, None, &present(true), &params(json!({})));
        assert_eq!((output.verdict, output.recommended), (Verdict::Keep, None));
        assert!(output.reason.contains("even_production") && output.choices.len() > 5);
        let asked = params(json!({"even_production": true}));
        assert_eq!(judge(&found, None, &present(true), &asked).verdict, Verdict::Change);
    }
}
