//! What a rehearsal showed: evidence about one change set, found again by the set's digest. PURE.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;
use super::store::Entry;
use crate::kernel::change::Origin;
use crate::kernel::{Change, ChangeSet, Digest, Failure, Receipt, Timestamp};

/// A lock on a relation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldLock {
    /// The relation, with its schema.
    pub relation: String,
    /// The mode, as PostgreSQL names it: `AccessExclusiveLock`.
    pub mode: String,
}

/// How trying a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialEnd {
    /// It was carried out on the branch.
    Applied,
    /// Its guard did not hold.
    Moot,
    /// It failed.
    Failed,
    /// It is no change of a database: nothing but SQL is tried.
    NotRehearsed,
    /// An earlier change failed.
    NotReached,
}

impl TrialEnd {
    /// The words for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Moot => "moot",
            Self::Failed => "failed",
            Self::NotRehearsed => "not rehearsed",
            Self::NotReached => "not reached",
        }
    }
}

/// A change that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// What it works on.
    pub object: String,
    /// The operation as a text: the whole statement, or the request.
    pub operation: String,
    /// The kind of the operation.
    pub kind: String,
    /// How it ended.
    pub ended: TrialEnd,
    /// Rows, time, and the measure before and after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The locks on relations that it held, the system's own left out. Those of a statement outside a
    /// transaction are sampled: a short one may have held more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub locks: Vec<HeldLock>,
}

impl Trial {
    /// A change that nobody has tried yet.
    pub fn of(change: &Change) -> Self {
        let on_database = change.operation.is_on_database();
        Self {
            object: change.object.clone(),
            operation: change.operation.to_string(),
            kind: change.operation.kind().to_owned(),
            ended: if on_database { TrialEnd::NotReached } else { TrialEnd::NotRehearsed },
            receipt: None,
            locks: Vec::new(),
        }
    }
}

/// What trying a change set showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// The digest of the tool's own changes; see [`own_digest`].
    pub set: Digest,
    /// The branch that it was tried on; none when no change is one of a database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Its changes, in order; those that the engine makes for its own needs are left out.
    pub changes: Vec<Trial>,
    /// How the structure of the database differs afterwards: its differences, as `capture_schema_diff`
    /// returns them. Null: not measured.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub schema: Value,
    /// Why the structure was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_unknown: Option<String>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Rehearsed {
    /// Whether every change of a database did what it should.
    pub fn passed(&self) -> bool {
        let is_good =
            |trial: &Trial| !matches!(trial.ended, TrialEnd::Failed | TrialEnd::NotReached);
        self.failure.is_none() && self.changes.iter().all(is_good)
    }
}

/// The digest that evidence is kept by: that of the set without what the engine adds for its own needs,
/// which stands only in the first set on a target.
pub fn own_digest(set: &ChangeSet) -> Digest {
    let is_own = |change: &&Change| change.origin == Origin::Tool;
    if set.changes.iter().all(|change| change.origin == Origin::Tool) {
        return set.digest.clone();
    }
    ChangeSet::new(set.changes.iter().filter(is_own).cloned().collect()).digest
}

/// Evidence that is kept.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evidence {
    /// The run that it is from.
    pub run: String,
    /// When it was taken.
    pub at: Timestamp,
    /// What it shows.
    #[serde(flatten)]
    pub rehearsed: Rehearsed,
}

/// The kinds of the entries that evidence is made from.
pub const EVIDENCE_KINDS: [&str; 1] = ["set_rehearsed"];

/// The newest evidence about each set, by the set's [`own_digest`].
pub fn newest(entries: Vec<Entry>) -> BTreeMap<Digest, Evidence> {
    let kept = entries.into_iter().filter_map(|entry| match entry.event {
        Event::SetRehearsed { rehearsed, .. } => {
            let evidence = Evidence { run: entry.stream, at: entry.at, rehearsed: *rehearsed };
            Some((evidence.rehearsed.set.clone(), evidence))
        }
        _ => None,
    });
    // Entries come in the order of the journal: later ones replace earlier ones.
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kernel::{Inverse, Operation};

    fn change(text: &str, origin: Origin) -> Change {
        let operation = Operation::sql(text, Vec::new());
        let mut change = Change::new("table a", "because", operation);
        change.origin = origin;
        change.inverse = Inverse::Unneeded;
        change
    }

    #[test]
    fn what_the_engine_adds_makes_no_other_set() {
        let own = ChangeSet::new(vec![change("create table a ()", Origin::Tool)]);
        let with_setup = ChangeSet::new(vec![
            change("create schema lakeops", Origin::Engine),
            change("create table a ()", Origin::Tool),
        ]);
        assert_ne!(own.digest, with_setup.digest);
        assert_eq!(own_digest(&own), own.digest);
        assert_eq!(own_digest(&with_setup), own.digest);
    }

    #[test]
    fn the_newest_evidence_counts_and_only_a_whole_one_passes() {
        let set = ChangeSet::new(vec![change("create table a ()", Origin::Tool)]);
        let rehearsed = |ended| Rehearsed {
            set: set.digest.clone(),
            branch: Some("tmp-1".into()),
            changes: vec![Trial { ended, ..Trial::of(&set.changes[0]) }],
            schema: Value::Null,
            schema_unknown: None,
            failure: None,
        };
        let entry = |position, ended| Entry {
            position,
            stream: format!("run{position}"),
            seq: 1,
            at: Timestamp::default(),
            event: Event::SetRehearsed { step: "a".into(), rehearsed: Box::new(rehearsed(ended)) },
        };
        let found = newest(vec![entry(1, TrialEnd::Applied), entry(2, TrialEnd::Failed)]);
        let one = &found[&set.digest];
        assert_eq!((one.run.as_str(), one.rehearsed.passed()), ("run2", false));
        assert!(rehearsed(TrialEnd::Moot).passed() && rehearsed(TrialEnd::NotRehearsed).passed());
        assert!(!rehearsed(TrialEnd::NotReached).passed());
        assert_eq!(json!(one)["changes"][0]["ended"], "failed");
    }
}
