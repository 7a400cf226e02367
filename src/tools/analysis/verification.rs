//! Whether advice about an index did on a branch what it is meant to do. PURE.
//!
//! The real index was made, dropped or built again there. What counts for a new index is the time of the
//! statements that use it now; for one that goes, that no plan changes; for one that was built again, its size.
//! Advice is refuted when it was tried and did not help, and not verified when nobody could tell.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::rounded;
use super::recommendation::{Kind, Recommendation};
use super::text::shorten;
use super::trial::{Measured, Measurement, Plan};
use super::write_cost::WriteCost;
use crate::kernel::ByteSize;

/// Times that differ by less than this many milliseconds are the same.
const NOISE_MS: f64 = 0.1;

/// A statement that takes this many times as long has become slower.
const SLOWER: f64 = 1.2;

/// A plan that costs this many times as much is another one, whatever its shape.
const DEARER: f64 = 1.1;

/// The most statements that are kept as evidence.
const MOST_STATEMENTS: usize = 20;

/// What a trial says of advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It did what it is meant to do.
    Verified,
    /// It was tried, and did not.
    Refuted,
    /// Nobody can tell.
    NotVerified,
}

/// What was seen when advice was tried on a branch, or why it was not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// What the trial says.
    pub verdict: Verdict,
    /// How that is known, with the numbers that say so.
    pub reason: String,
    /// The branch on which it was tried; it is gone by now.
    #[serde(default)]
    pub branch: Option<String>,
    /// The share of the time that statements which use the index no longer take, weighted by their calls.
    #[serde(default)]
    pub gain: Option<f64>,
    /// The statements that touch the table, those that took the most time first.
    #[serde(default)]
    pub statements: Vec<Compared>,
    /// The bytes of the index before.
    #[serde(default)]
    pub bytes_before: Option<u64>,
    /// The bytes of the index after.
    #[serde(default)]
    pub bytes_after: Option<u64>,
    /// How long it took to make, drop or build again, in milliseconds.
    #[serde(default)]
    pub built_ms: Option<u64>,
    /// What keeping it costs whoever writes.
    #[serde(default)]
    pub writes: Option<WriteCost>,
    /// Why the cost of writes is not known.
    #[serde(default)]
    pub writes_not_measured: Option<String>,
}

impl Verification {
    /// Nothing was seen, and this is why.
    pub fn none(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::NotVerified,
            reason: reason.into(),
            branch: None,
            gain: None,
            statements: Vec::new(),
            bytes_before: None,
            bytes_after: None,
            built_ms: None,
            writes: None,
            writes_not_measured: None,
        }
    }

    /// The verdict with its reason, for people.
    pub fn told(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Verified => "verified on a branch",
            Verdict::Refuted => "refuted on a branch",
            Verdict::NotVerified => "not verified",
        };
        format!("{verdict}: {}", self.reason)
    }
}

/// A statement before and after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Compared {
    /// Its identity in `pg_stat_statements`.
    pub queryid: i64,
    /// Its text without literals, the first 200 characters.
    pub query: String,
    /// How often it was carried out where it was recorded.
    pub calls: i64,
    /// The median of its executions before, in milliseconds.
    pub before_ms: Option<f64>,
    /// The same after.
    pub after_ms: Option<f64>,
    /// The pages that one execution asked for before.
    pub pages_before: Option<u64>,
    /// The same after.
    pub pages_after: Option<u64>,
    /// What the planner thought that it cost before.
    pub cost_before: Option<f64>,
    /// The same after.
    pub cost_after: Option<f64>,
    /// Whether its plan reads the index, after for a new one, before for one that goes.
    pub uses_index: bool,
    /// Whether it has another plan.
    pub plan_changed: bool,
    /// Why it was not carried out.
    pub not_measured: Option<String>,
}

/// Everything that was seen of a trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial<'a> {
    /// The branch.
    pub branch: &'a str,
    /// All advice that was tried together.
    pub advice: &'a [Recommendation],
    /// Before it was followed.
    pub before: &'a Measurement,
    /// After.
    pub after: &'a Measurement,
    /// How long following it took, in milliseconds, by fingerprint.
    pub built: &'a BTreeMap<String, u64>,
    /// What keeping new indexes costs, by `schema.index`, or why it is not known.
    pub writes: &'a BTreeMap<String, Result<WriteCost, String>>,
    /// The least share of time that a new index must save.
    pub min_gain: f64,
}

struct Pair<'a> {
    before: &'a Measured,
    after: &'a Measured,
}

/// Judges one piece of the advice.
pub fn judge(trial: &Trial<'_>, advice: &Recommendation) -> Verification {
    let (index, table) = (advice.index_name(), advice.table_name());
    let is_new = advice.kind.makes_index();
    let size = |measurement: &Measurement| {
        measurement.indexes.iter().find(|it| it.index == index).cloned()
    };
    let (before, after) = (size(trial.before), size(trial.after));
    let pairs = pairs(trial, &table);
    let judged = match advice.kind {
        Kind::CreateFkIndex | Kind::CreateMissing => {
            if after.as_ref().is_some_and(|it| it.is_valid) {
                created(trial, advice, &index, &pairs)
            } else {
                Judged::of(Verdict::NotVerified, "the index did not come to be on the branch")
            }
        }
        Kind::ReindexBloated => {
            let sizes = before.as_ref().zip(after.as_ref());
            rebuilt(sizes.map(|(before, after)| (before.size_bytes, after.size_bytes)))
        }
        Kind::DropDuplicate | Kind::DropRedundant | Kind::DropUnused | Kind::DropInvalid => {
            if after.is_none() {
                dropped(trial, advice, &index, &pairs)
            } else {
                Judged::of(Verdict::NotVerified, "the index is still there on the branch")
            }
        }
    };
    let writes = trial.writes.get(&index).filter(|_| is_new);
    let compared = pairs.iter().take(MOST_STATEMENTS).map(|pair| compared(pair, &index, is_new));
    Verification {
        verdict: judged.verdict,
        reason: judged.reason,
        branch: Some(trial.branch.to_owned()),
        gain: judged.gain.map(rounded),
        statements: compared.collect(),
        bytes_before: before.map(|it| it.size_bytes),
        bytes_after: after.map(|it| it.size_bytes),
        built_ms: trial.built.get(&advice.fingerprint).copied(),
        writes: writes.and_then(|cost| cost.as_ref().ok()).cloned(),
        writes_not_measured: writes.and_then(|cost| cost.as_ref().err()).cloned(),
    }
}

struct Judged {
    verdict: Verdict,
    reason: String,
    gain: Option<f64>,
}

impl Judged {
    fn of(verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { verdict, reason: reason.into(), gain: None }
    }
}

/// The statements that touch a table, each before and after, those that took the most time first.
fn pairs<'a>(trial: &Trial<'a>, table: &str) -> Vec<Pair<'a>> {
    let touches = |it: &&Measured| it.tables.contains(table);
    let pair = |before: &'a Measured| {
        let after = trial.after.statements.iter().find(|it| it.queryid == before.queryid)?;
        Some(Pair { before, after })
    };
    trial.before.statements.iter().filter(touches).filter_map(pair).collect()
}

/// All plans by which a statement was thought of or carried out.
fn plans(measured: &Measured) -> impl Iterator<Item = &Plan> {
    measured.plan.iter().chain(measured.times.iter().flat_map(|times| &times.plans))
}

fn reads(measured: &Measured, index: &str) -> bool {
    plans(measured).any(|plan| plan.indexes.contains(index))
}

fn compared(pair: &Pair<'_>, index: &str, is_new: bool) -> Compared {
    let Pair { before, after } = *pair;
    let (ms, pages, cost) = (
        |it: &Measured| it.times.as_ref().map(|times| times.median_ms),
        |it: &Measured| it.times.as_ref().map(|times| times.pages),
        |it: &Measured| it.plan.as_ref().map(|plan| plan.cost),
    );
    Compared {
        queryid: before.queryid,
        query: shorten(&before.query),
        calls: before.calls,
        before_ms: ms(before),
        after_ms: ms(after),
        pages_before: pages(before),
        pages_after: pages(after),
        cost_before: cost(before),
        cost_after: cost(after),
        uses_index: reads(if is_new { after } else { before }, index),
        plan_changed: shapes(before) != shapes(after),
        not_measured: before.not_measured.clone().or_else(|| after.not_measured.clone()),
    }
}

fn shapes(measured: &Measured) -> BTreeSet<&str> {
    plans(measured).map(|plan| plan.shape.as_str()).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a weight")]
fn created(trial: &Trial<'_>, advice: &Recommendation, index: &str, pairs: &[Pair<'_>]) -> Judged {
    if pairs.is_empty() {
        return Judged::of(
            Verdict::NotVerified,
            "no statement of the recorded workload touches the table",
        );
    }
    let users: Vec<&Pair<'_>> = pairs.iter().filter(|pair| reads(pair.after, index)).collect();
    if users.is_empty() {
        let many = pairs.len();
        return if advice.kind == Kind::CreateFkIndex {
            Judged::of(
                Verdict::NotVerified,
                format!(
                    "none of {many} recorded statements uses it; it serves whoever deletes rows that are \
                 referred to, and that was not recorded"
                ),
            )
        } else {
            Judged::of(
                Verdict::Refuted,
                format!("none of {many} recorded statements on the table uses it"),
            )
        };
    }
    if let Some(slower) = pairs.iter().find(|pair| is_slower(pair)) {
        return Judged::of(
            Verdict::Refuted,
            format!(
                "statement {} takes {} instead of {}",
                slower.before.queryid,
                ms(slower.after),
                ms(slower.before)
            ),
        );
    }
    let measured = users.iter().filter_map(|pair| {
        let (before, after) = (pair.before.times.as_ref()?, pair.after.times.as_ref()?);
        Some((pair.before.calls.max(1) as f64, before.median_ms, after.median_ms))
    });
    let measured: Vec<(f64, f64, f64)> = measured.collect();
    let (before, after, calls) = measured
        .iter()
        .fold((0.0, 0.0, 0.0), |sum, it| (sum.0 + it.0 * it.1, sum.1 + it.0 * it.2, sum.2 + it.0));
    if measured.is_empty() || before <= 0.0 {
        let why = users.iter().find_map(|pair| pair.before.not_measured.as_deref());
        return Judged::of(
            Verdict::NotVerified,
            format!(
                "{} statements use it, and none could be carried out: {}",
                users.len(),
                why.unwrap_or("there was no time")
            ),
        );
    }
    let gain = 1.0 - after / before;
    let reason = format!(
        "{} of {} statements on the table use it; a call takes {:.3} ms instead of {:.3} ms",
        users.len(),
        pairs.len(),
        after / calls,
        before / calls,
    );
    let verdict = if gain >= trial.min_gain { Verdict::Verified } else { Verdict::Refuted };
    Judged { gain: Some(gain), ..Judged::of(verdict, reason) }
}

fn ms(measured: &Measured) -> String {
    let median = measured.times.as_ref().map(|times| format!("{:.3} ms", times.median_ms));
    median.unwrap_or_else(|| "an unknown time".to_owned())
}

/// Whether a statement takes longer, by another plan: the same plan that takes longer is noise.
fn is_slower(pair: &Pair<'_>) -> bool {
    let (Some(before), Some(after)) = (&pair.before.times, &pair.after.times) else { return false };
    shapes(pair.before) != shapes(pair.after)
        && after.median_ms > before.median_ms * SLOWER + NOISE_MS
}

fn rebuilt(sizes: Option<(u64, u64)>) -> Judged {
    match sizes {
        None => Judged::of(Verdict::NotVerified, "the index is not on the branch"),
        Some((before, after)) => {
            let text = format!("{} instead of {}", ByteSize(after), ByteSize(before));
            let verdict = if after < before { Verdict::Verified } else { Verdict::Refuted };
            Judged::of(verdict, text)
        }
    }
}

fn dropped(trial: &Trial<'_>, advice: &Recommendation, index: &str, pairs: &[Pair<'_>]) -> Judged {
    if trial.before.statements.is_empty() && trial.before.not_measured.is_empty() {
        return Judged::of(
            Verdict::Verified,
            "no statement of the recorded workload touches the table",
        );
    }
    if let Some(missing) = trial.before.not_measured.first() {
        return Judged::of(
            Verdict::NotVerified,
            format!("{} not known: {}", missing.what, missing.why),
        );
    }
    let planless =
        pairs.iter().filter(|pair| pair.before.plan.is_none() || pair.after.plan.is_none());
    let planless = planless.count();
    if planless > 0 {
        return Judged::of(
            Verdict::NotVerified,
            format!("{planless} statements on the table have no plan"),
        );
    }
    // Indexes that were tried together, and may have changed plans by themselves.
    let others: Vec<String> = trial
        .advice
        .iter()
        .filter(|other| other.kind.makes_index())
        .map(Recommendation::index_name)
        .collect();
    for pair in pairs {
        let by_other =
            !reads(pair.before, index) && others.iter().any(|other| reads(pair.after, other));
        if !by_other && is_other_plan(pair, advice) {
            let how = if reads(pair.before, index) { "used it, and has" } else { "has" };
            return Judged::of(
                Verdict::Refuted,
                format!(
                    "statement {} {how} another plan without it: {} instead of {}",
                    pair.before.queryid,
                    cost(pair.after),
                    cost(pair.before)
                ),
            );
        }
    }
    Judged::of(
        Verdict::Verified,
        format!("none of {} statements on the table has another plan without it", pairs.len()),
    )
}

fn cost(measured: &Measured) -> String {
    let cost = measured.plan.as_ref().map(|plan| format!("cost {:.0}", plan.cost));
    cost.unwrap_or_else(|| "no plan".to_owned())
}

/// Whether a plan without an index is another one. An index that takes its place, and for whose sake it is
/// superfluous, makes none.
fn is_other_plan(pair: &Pair<'_>, advice: &Recommendation) -> bool {
    let own = format!(" {};", advice.index);
    let renamed = |shape: &str| {
        let twins = advice.relies_on.iter().map(|twin| format!(" {twin};"));
        twins.fold(shape.to_owned(), |shape, twin| shape.replace(&twin, &own))
    };
    let plain = |measured: &Measured| -> BTreeSet<String> {
        shapes(measured).into_iter().map(renamed).collect()
    };
    let costs = pair.before.plan.as_ref().zip(pair.after.plan.as_ref());
    let is_dearer = costs.is_some_and(|(before, after)| after.cost > before.cost * DEARER);
    plain(pair.before) != plain(pair.after) || is_dearer
}

#[cfg(test)]
mod tests {
    use super::super::recommendation::tests::advice;
    use super::super::trial::{Built, Times};
    use super::*;

    fn plan(index: &str, cost: f64) -> Plan {
        let indexes = (!index.is_empty()).then(|| format!("public.{index}"));
        let node = if index.is_empty() { "Seq Scan" } else { "Index Scan" };
        Plan { shape: format!("0{node} t {index};"), cost, indexes: indexes.into_iter().collect() }
    }

    fn measured(queryid: i64, plan: Plan, median_ms: Option<f64>) -> Measured {
        let times = median_ms.map(|median_ms| Times {
            median_ms,
            executions: 9,
            plans: vec![plan.clone()],
            ..Times::default()
        });
        Measured {
            queryid,
            calls: 10,
            tables: BTreeSet::from(["public.t".to_owned()]),
            plan: Some(plan),
            not_measured: times.is_none().then(|| "no value is known for $1".to_owned()),
            times,
            ..Measured::default()
        }
    }

    fn seen(statements: &[Measured], indexes: &[(&str, u64)]) -> Measurement {
        let built = |(index, size_bytes): &(&str, u64)| Built {
            index: format!("public.{index}"),
            size_bytes: *size_bytes,
            is_valid: true,
        };
        Measurement {
            statements: statements.to_vec(),
            indexes: indexes.iter().map(built).collect(),
            ..Measurement::default()
        }
    }

    fn verdict(kind: Kind, before: &Measurement, after: &Measurement) -> (Verdict, String) {
        let advice = Recommendation { kind, relies_on: vec!["twin".into()], ..advice("a") };
        let (built, writes) = (BTreeMap::new(), BTreeMap::new());
        let trial = Trial {
            branch: "tmp-1",
            advice: std::slice::from_ref(&advice),
            before,
            after,
            built: &built,
            writes: &writes,
            min_gain: 0.2,
        };
        let found = judge(&trial, &advice);
        (found.verdict, found.reason)
    }

    #[test]
    fn a_new_index_must_save_time() {
        let new = &[("t_a_idx", 100)];
        let before = seen(&[measured(1, plan("", 90.0), Some(5.0))], &[]);
        let of = |after: &Measurement| verdict(Kind::CreateMissing, &before, after);
        let faster = seen(&[measured(1, plan("t_a_idx", 8.0), Some(0.5))], new);
        let reason =
            "1 of 1 statements on the table use it; a call takes 0.500 ms instead of 5.000 ms";
        assert_eq!(of(&faster), (Verdict::Verified, reason.to_owned()));
        let same = seen(&[measured(1, plan("t_a_idx", 8.0), Some(4.9))], new);
        assert_eq!(of(&same).0, Verdict::Refuted);
        let unused = seen(&[measured(1, plan("", 90.0), Some(5.0))], new);
        assert_eq!(of(&unused).0, Verdict::Refuted);
        let absent = seen(&[measured(1, plan("", 90.0), Some(5.0))], &[]);
        assert_eq!(of(&absent).0, Verdict::NotVerified);
        let planned = seen(&[measured(1, plan("t_a_idx", 8.0), None)], new);
        let (found, why) = of(&planned);
        assert_eq!(found, Verdict::NotVerified, "{why}");
        let foreign = verdict(Kind::CreateFkIndex, &before, &unused);
        assert_eq!(foreign.0, Verdict::NotVerified, "{}", foreign.1);
    }

    #[test]
    fn a_new_index_must_make_nothing_slower() {
        let two = |one, two, times: (f64, f64), indexes: &[(&str, u64)]| {
            seen(&[measured(1, one, Some(times.0)), measured(2, two, Some(times.1))], indexes)
        };
        let before = two(plan("", 90.0), plan("", 90.0), (5.0, 5.0), &[]);
        let new = &[("t_a_idx", 100)];
        let worse = two(plan("t_a_idx", 8.0), plan("t_a_idx", 80.0), (0.5, 50.0), new);
        let (found, why) = verdict(Kind::CreateMissing, &before, &worse);
        assert_eq!(
            (found, why.as_str()),
            (Verdict::Refuted, "statement 2 takes 50.000 ms instead of 5.000 ms")
        );
        // The same plan that took longer says nothing about the index.
        let noisy = two(plan("t_a_idx", 8.0), plan("", 90.0), (0.5, 50.0), new);
        assert_eq!(verdict(Kind::CreateMissing, &before, &noisy).0, Verdict::Verified);
    }

    #[test]
    fn an_index_that_goes_must_change_no_plan() {
        let of = |before: Plan, after: Plan| {
            let before = seen(&[measured(1, before, None)], &[("t_a_idx", 100), ("twin", 100)]);
            let after = seen(&[measured(1, after, None)], &[("twin", 100)]);
            verdict(Kind::DropDuplicate, &before, &after)
        };
        assert_eq!(of(plan("other", 8.0), plan("other", 8.0)).0, Verdict::Verified);
        // Its twin takes its place.
        assert_eq!(of(plan("t_a_idx", 8.0), plan("twin", 8.0)).0, Verdict::Verified);
        let (found, why) = of(plan("t_a_idx", 8.0), plan("", 90.0));
        assert_eq!(found, Verdict::Refuted);
        assert_eq!(
            why,
            "statement 1 used it, and has another plan without it: cost 90 instead of cost 8"
        );
        assert_eq!(of(plan("t_a_idx", 8.0), plan("twin", 9.0)).0, Verdict::Refuted);
        let still = seen(&[], &[("t_a_idx", 100)]);
        assert_eq!(verdict(Kind::DropUnused, &still, &still).0, Verdict::NotVerified);
        let nothing = seen(&[], &[]);
        assert_eq!(verdict(Kind::DropUnused, &still, &nothing).0, Verdict::Verified);
    }

    #[test]
    fn an_index_built_again_must_be_smaller() {
        let of = |size| seen(&[], &[("t_a_idx", size)]);
        let (found, why) = verdict(Kind::ReindexBloated, &of(4 << 20), &of(1 << 20));
        let expected = format!("{} instead of {}", ByteSize(1 << 20), ByteSize(4 << 20));
        assert_eq!((found, why), (Verdict::Verified, expected));
        assert_eq!(verdict(Kind::ReindexBloated, &of(1), &of(1)).0, Verdict::Refuted);
        assert_eq!(verdict(Kind::ReindexBloated, &of(1), &seen(&[], &[])).0, Verdict::NotVerified);
    }
}
