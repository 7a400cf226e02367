//! Advice with an identity and a life: the same advice of two runs is one recommendation.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::verification::Verification;
use crate::kernel::Digest;
use crate::tools::tool::HistoryRow;

/// What is advised.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Drop an index that another one equals.
    DropDuplicate,
    /// Drop an index whose keys begin another one.
    DropRedundant,
    /// Drop an index that nobody uses.
    DropUnused,
    /// Drop an index that a failed build left.
    DropInvalid,
    /// Build an index again that is mostly empty.
    ReindexBloated,
    /// Make an index for a foreign key.
    CreateFkIndex,
    /// Make an index that queries want.
    CreateMissing,
}

impl Kind {
    /// Whether following it makes an index that was not there.
    pub const fn makes_index(self) -> bool {
        matches!(self, Self::CreateFkIndex | Self::CreateMissing)
    }
}

/// How sure the advice is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Worth a look.
    Low,
    /// Likely; verify it on a branch.
    Medium,
    /// By definition or by measurement.
    High,
}

/// Where in its life a recommendation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nobody has decided.
    Pending,
    /// A person said yes.
    Approved,
    /// It was carried out.
    Executed,
    /// A person said no.
    Rejected,
    /// What it was about is no longer so.
    Superseded,
    /// It was carried out, and a later look found its effect.
    Verified,
}

/// What happened to a recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A person said yes.
    Approve,
    /// A person said no.
    Reject,
    /// It was carried out.
    Execute,
    /// A later look found its effect.
    FindEffect,
    /// A later look no longer found its cause, nor its effect.
    LoseCause,
    /// A later look found its cause again.
    FindCause,
}

impl Status {
    /// The status after a step; `None` when the step makes no difference.
    pub const fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Pending, Step::Approve) => Some(Self::Approved),
            (Self::Pending | Self::Approved, Step::Reject) => Some(Self::Rejected),
            (Self::Pending | Self::Approved, Step::Execute) => Some(Self::Executed),
            (Self::Pending | Self::Approved | Self::Executed, Step::FindEffect) => {
                Some(Self::Verified)
            }
            (Self::Pending | Self::Approved, Step::LoseCause) => Some(Self::Superseded),
            (Self::Superseded | Self::Verified | Self::Executed, Step::FindCause) => {
                Some(Self::Pending)
            }
            _ => None,
        }
    }

    /// Whether it waits for something.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Approved | Self::Executed)
    }
}

/// One piece of advice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recommendation {
    /// Its identity: equal for the same advice on the same objects, run after run.
    pub fingerprint: String,
    /// What is advised.
    pub kind: Kind,
    /// The schema.
    pub schema: String,
    /// The table in it.
    pub table: String,
    /// The index that is there, or the name of the new one.
    pub index: String,
    /// The keys of the index.
    pub columns: Vec<String>,
    /// How sure it is.
    pub confidence: Confidence,
    /// Why, with the numbers that say so.
    pub why: String,
    /// What following it brings, for people.
    pub impact: String,
    /// The bytes that it is about.
    pub bytes: u64,
    /// The statement that follows it; outside a transaction.
    pub statement: String,
    /// The statement that takes it back.
    pub undo: Option<String>,
    /// Whether the statement blocks writers while it runs.
    pub blocks_writers: bool,
    /// Indexes of the same schema that must stay for this to be right.
    #[serde(default)]
    pub relies_on: Vec<String>,
    /// Whether it was tried on a branch, and did there what it is meant to do.
    pub verified: bool,
    /// What was seen when it was tried, or why it was not; absent as long as nobody has tried to.
    #[serde(default)]
    pub verification: Option<Verification>,
    /// Where in its life it is.
    pub status: Status,
    /// When it was first given.
    pub first_seen: String,
}

impl Recommendation {
    /// `schema.index`, as plans name it.
    pub fn index_name(&self) -> String {
        format!("{}.{}", self.schema, self.index)
    }

    /// `schema.table`, as plans name it.
    pub fn table_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }
}

/// What a recommendation stands on: two with the same one are the same.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// An index as it is made now.
    Drop {
        /// Its definition, which names schema, table and index.
        definition: &'a str,
    },
    /// An index of a name.
    Reindex {
        /// `schema.name`.
        index: &'a str,
    },
    /// A new index, whatever it will be called.
    Create {
        /// `schema.name` of the table.
        table: &'a str,
        /// The access method.
        method: &'a str,
        /// Its keys in order.
        keys: &'a [String],
        /// Its condition.
        predicate: Option<&'a str>,
    },
}

impl Identity<'_> {
    /// The first 16 digits of its digest.
    pub fn fingerprint(&self) -> String {
        let value = match self {
            Self::Drop { definition } => json!(["drop", definition]),
            Self::Reindex { index } => json!(["reindex", index]),
            Self::Create { table, method, keys, predicate } => {
                json!(["create", table, method, keys, predicate])
            }
        };
        Digest::of_value(&value).as_str().chars().take(16).collect()
    }
}

/// The advice of today, joined with that of earlier runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Advice {
    /// What is advised now, with the life that it has led.
    pub recommendations: Vec<Recommendation>,
    /// Advice of earlier runs that has come to an end.
    pub closed: Vec<Recommendation>,
    /// The fingerprints whose status is new.
    pub changed: Vec<String>,
}

impl Advice {
    /// The rows for the history: only advice whose status is new, so that runs repeat nothing.
    pub fn history_rows(&self) -> Vec<HistoryRow> {
        let is_new = |advice: &&Recommendation| self.changed.contains(&advice.fingerprint);
        self.recommendations.iter().chain(&self.closed).filter(is_new).map(history_row).collect()
    }

    /// The bytes that the open advice is about.
    pub fn bytes(&self) -> u64 {
        let open = self.recommendations.iter().filter(|advice| advice.status.is_open());
        open.map(|advice| advice.bytes).sum()
    }
}

/// What was decided about advice outside the tool that gives it.
#[derive(Clone, Debug, Default)]
pub struct Decided {
    /// The status that the history knows, by fingerprint: what was approved, rejected or carried out.
    pub recorded: BTreeMap<String, Status>,
    /// What a person does not want, said just now.
    pub rejected: Vec<String>,
}

impl Decided {
    /// The status from which advice goes on: what was decided counts more than what the tool last saw.
    fn status(&self, fingerprint: &str, before: Option<&Recommendation>) -> Option<Status> {
        let recorded = self.recorded.get(fingerprint).copied();
        match (before.map(|before| before.status), recorded) {
            (Some(seen), Some(recorded)) if seen.is_open() => Some(recorded),
            (Some(seen), _) => Some(seen),
            (None, recorded) => recorded,
        }
    }
}

/// Joins today's advice with that of earlier outputs of the same tool (newest first) and with what was
/// decided. `has_effect` says whether what was advised is so now.
pub fn continued(
    earlier: &[Value],
    today: Vec<Recommendation>,
    decided: &Decided,
    has_effect: impl Fn(&Recommendation) -> bool,
) -> Advice {
    let known = earlier.first().map(listed).unwrap_or_default();
    let mut continued = Advice::default();
    for mut advice in today {
        let before = known.iter().find(|old| old.fingerprint == advice.fingerprint);
        if let Some(before) = before {
            advice.first_seen.clone_from(&before.first_seen);
            advice.verified |= before.verified;
            advice.verification = advice.verification.or_else(|| before.verification.clone());
        }
        let status = decided.status(&advice.fingerprint, before);
        if let Some(status) = status {
            advice.status = status.after(Step::FindCause).unwrap_or(status);
        }
        if decided.rejected.contains(&advice.fingerprint) {
            advice.status = advice.status.after(Step::Reject).unwrap_or(advice.status);
        }
        if status != Some(advice.status) {
            continued.changed.push(advice.fingerprint.clone());
        }
        continued.recommendations.push(advice);
    }
    for mut old in known {
        old.status = decided.status(&old.fingerprint, Some(&old)).unwrap_or(old.status);
        let again =
            continued.recommendations.iter().any(|advice| advice.fingerprint == old.fingerprint);
        if again || !old.status.is_open() {
            continue;
        }
        let step = if has_effect(&old) { Step::FindEffect } else { Step::LoseCause };
        if let Some(status) = old.status.after(step) {
            old.status = status;
            continued.changed.push(old.fingerprint.clone());
            continued.closed.push(old);
        }
    }
    continued
}

/// The advice of one earlier output; what this version cannot read counts as not given.
fn listed(output: &Value) -> Vec<Recommendation> {
    let list = |name: &str| output.get(name).and_then(Value::as_array).into_iter().flatten();
    list("recommendations").filter_map(|value| Recommendation::deserialize(value).ok()).collect()
}

/// The row of the history: one for each change of its status, found again by its fingerprint.
pub fn history_row(advice: &Recommendation) -> HistoryRow {
    HistoryRow {
        table: "index_recommendations".to_owned(),
        row: json!({
            "fingerprint": advice.fingerprint,
            "schema_name": advice.schema,
            "table_name": advice.table,
            "recommendation_type": advice.kind,
            "index_name": advice.index,
            "suggested_columns": advice.columns.join(", "),
            "confidence": advice.confidence,
            "estimated_impact": advice.impact,
            "ddl_statement": advice.statement,
            "status": advice.status,
            "why": advice.why,
            "size_bytes": advice.bytes,
            "evidence": {
                "first_seen": advice.first_seen,
                "verified": advice.verified,
                "verification": advice.verification,
            },
        }),
    }
}

/// The row of the history for advice that a person decided about; `None` when the facts of a change are no
/// advice, or the decision makes no difference.
pub fn reviewed(facts: &Value, approved: bool) -> Option<HistoryRow> {
    let mut advice = Recommendation::deserialize(facts).ok()?;
    let step = if approved { Step::Approve } else { Step::Reject };
    advice.status = advice.status.after(step)?;
    Some(history_row(&advice))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn advice(fingerprint: &str) -> Recommendation {
        Recommendation {
            fingerprint: fingerprint.to_owned(),
            kind: Kind::DropUnused,
            schema: "public".into(),
            table: "t".into(),
            index: "t_a_idx".into(),
            columns: vec!["a".into()],
            confidence: Confidence::High,
            why: "nobody reads it".into(),
            impact: "8 kB".into(),
            bytes: 8192,
            statement: "drop index concurrently \"public\".\"t_a_idx\"".into(),
            undo: None,
            blocks_writers: false,
            relies_on: Vec::new(),
            verified: false,
            verification: None,
            status: Status::Pending,
            first_seen: "2026-01-01T00:00:00.000Z".into(),
        }
    }

    fn nothing() -> Decided {
        Decided::default()
    }

    fn output(list: &[Recommendation]) -> Vec<Value> {
        vec![json!({ "recommendations": list })]
    }

    #[test]
    fn the_same_advice_twice_is_one() {
        let later = Recommendation { first_seen: "2026-02-01T00:00:00.000Z".into(), ..advice("a") };
        let found = continued(&output(&[advice("a")]), vec![later], &nothing(), |_| false);
        assert_eq!(found.recommendations[0].first_seen, "2026-01-01T00:00:00.000Z");
        assert_eq!((found.changed.len(), found.closed.len()), (0, 0));
        assert!(found.history_rows().is_empty());
        let first = continued(&[], vec![advice("a")], &nothing(), |_| false);
        assert_eq!(first.history_rows().len(), 1);
    }

    #[test]
    fn advice_ends_by_its_effect_or_without_its_cause() {
        let before = output(&[advice("a")]);
        let done = continued(&before, vec![], &nothing(), |_| true);
        assert_eq!(done.closed[0].status, Status::Verified);
        let gone = continued(&before, vec![], &nothing(), |_| false);
        assert_eq!(gone.closed[0].status, Status::Superseded);
        assert_eq!(gone.changed, ["a"]);
    }

    #[test]
    fn a_rejection_is_remembered() {
        let rejected = Decided { rejected: vec!["a".to_owned()], ..nothing() };
        let found = continued(&output(&[advice("a")]), vec![advice("a")], &rejected, |_| false);
        assert_eq!((found.recommendations[0].status, found.changed.len()), (Status::Rejected, 1));
        let again =
            continued(&output(&found.recommendations), vec![advice("a")], &nothing(), |_| false);
        assert_eq!((again.recommendations[0].status, again.changed.len()), (Status::Rejected, 0));
    }

    #[test]
    fn what_was_decided_elsewhere_counts() {
        let recorded =
            |status| Decided { recorded: BTreeMap::from([("a".to_owned(), status)]), ..nothing() };
        let before = output(&[advice("a")]);
        let executed = continued(&before, vec![], &recorded(Status::Executed), |_| true);
        assert_eq!(executed.closed[0].status, Status::Verified);
        let rejected =
            continued(&before, vec![advice("a")], &recorded(Status::Rejected), |_| false);
        assert_eq!(rejected.recommendations[0].status, Status::Rejected);
        assert!(rejected.changed.is_empty(), "the history knows it already");
        // Also when the journal has been pruned since.
        let pruned = continued(&[], vec![advice("a")], &recorded(Status::Rejected), |_| false);
        assert_eq!(pruned.recommendations[0].status, Status::Rejected);
        // What came back after it was carried out is open again.
        let again = continued(&before, vec![advice("a")], &recorded(Status::Executed), |_| false);
        assert_eq!(again.recommendations[0].status, Status::Pending);
        assert_eq!(again.changed, ["a"]);
    }

    #[test]
    fn a_decision_about_a_change_is_one_about_its_advice() {
        let facts = json!(advice("a"));
        assert_eq!(reviewed(&facts, true).unwrap().row["status"], "approved");
        assert_eq!(reviewed(&facts, false).unwrap().row["status"], "rejected");
        let executed = json!(Recommendation { status: Status::Executed, ..advice("a") });
        assert_eq!(reviewed(&executed, true), None);
        assert_eq!(reviewed(&json!({"fingerprint": "a"}), true), None);
        assert_eq!(reviewed(&Value::Null, false), None);
    }

    #[test]
    fn a_life_goes_one_way() {
        use Status::{Approved, Executed, Pending, Rejected, Superseded, Verified};
        assert_eq!(Pending.after(Step::Approve), Some(Approved));
        assert_eq!(Approved.after(Step::Execute), Some(Executed));
        assert_eq!(Executed.after(Step::FindEffect), Some(Verified));
        assert_eq!(Executed.after(Step::LoseCause), None);
        assert_eq!(Rejected.after(Step::Approve), None);
        assert_eq!(Rejected.after(Step::FindCause), None);
        assert_eq!(Superseded.after(Step::FindCause), Some(Pending));
        assert_eq!(Verified.after(Step::Execute), None);
    }

    #[test]
    fn fingerprints_tell_keys_in_order() {
        let of = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
            Identity::Create { table: "public.t", method: "btree", keys: &keys, predicate: None }
                .fingerprint()
        };
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
        assert_eq!(of(&["a"]).len(), 16);
    }
}
