//! What happened to branches: rows of the history, and events that workflows can wait for. PURE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::policy::Creator;
use crate::kernel::{Change, Inverse, Operation, Recovery};
use crate::tools::tool::{HistoryRow, Settled};

/// What happened to a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum What {
    /// It was made.
    Created,
    /// It was deleted.
    Deleted,
    /// The platform protects it.
    Protected,
    /// The platform does not protect it any more.
    Unprotected,
    /// It was set back to its parent.
    Reset,
    /// It was told when to expire.
    ExpirationSet,
}

impl What {
    /// The event that says so to triggers and waits, and the one that takes it back.
    const fn event(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Created => ("branch_created", Some("branch_deleted")),
            Self::Deleted => ("branch_deleted", None),
            Self::Protected => ("branch_protected", Some("branch_unprotected")),
            Self::Unprotected => ("branch_unprotected", Some("branch_protected")),
            Self::Reset => ("branch_reset", None),
            Self::ExpirationSet => ("branch_expiration_set", None),
        }
    }
}

/// One thing that happened to a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct BranchEvent {
    /// What happened.
    pub(in crate::tools) event_type: What,
    /// The project.
    pub(in crate::tools) project_id: String,
    /// The branch.
    pub(in crate::tools) branch_id: String,
    /// Its parent.
    pub(in crate::tools) source_branch: Option<String>,
    /// How long it lives, in seconds; absent when it stays or nothing was said.
    pub(in crate::tools) ttl_seconds: Option<u64>,
    /// Whether the platform protects it now.
    pub(in crate::tools) is_protected: Option<bool>,
    /// Who asked for it.
    pub(in crate::tools) creator_type: Creator,
    /// Why.
    pub(in crate::tools) reason: String,
}

/// The name under which a change carries its event in its facts.
const FACT: &str = "lifecycle";

impl BranchEvent {
    /// Puts the event into the facts of the change that brings it about.
    pub(in crate::tools) fn mark(&self, change: &mut Change) {
        if !change.facts.is_object() {
            change.facts = json!({});
        }
        change.facts[FACT] = json!(self);
    }

    /// A change that tells triggers and waits of it.
    pub(in crate::tools) fn publication(&self) -> Change {
        let (name, opposite) = self.event_type.event();
        let payload = json!({
            // Parameters of these names are what a trigger fills in.
            "project": self.project_id,
            "branch": self.branch_id,
            "project_id": self.project_id,
            "branch_id": self.branch_id,
            "source_branch": self.source_branch,
            "reason": self.reason,
        });
        publication(name, opposite, &payload)
    }
}

/// A change that publishes an event, undone by the opposite one.
pub(in crate::tools) fn publication(name: &str, opposite: Option<&str>, payload: &Value) -> Change {
    let event = |name: &str| Operation::Event { name: name.to_owned(), payload: payload.clone() };
    let mut change =
        Change::new(format!("event {name}"), "triggers and waits can see it", event(name));
    if let Some(opposite) = opposite {
        change.inverse = Inverse::By { operation: event(opposite), recovery: Recovery::Repeatable };
    }
    change
}

/// What happened: the events of the changes that were carried out now. What was found as it should be
/// did not happen.
pub(in crate::tools) fn happened(settled: &[Settled<'_>]) -> Vec<BranchEvent> {
    let done = settled.iter().filter(|settled| is_done(settled));
    done.filter_map(|settled| serde_json::from_value(settled.change.facts[FACT].clone()).ok())
        .collect()
}

/// Whether a change was carried out, and not found done already.
pub(in crate::tools) fn is_done(settled: &Settled<'_>) -> bool {
    settled.receipt().is_some_and(|receipt| receipt.result["adopted"] != true)
}

/// The resource that a change ended with; null where there is none.
pub(in crate::tools) fn resource<'a>(settled: &Settled<'a>) -> &'a Value {
    match settled.settlement {
        Some(crate::kernel::Settlement::Applied { receipt }) => &receipt.result["resource"],
        _ => &Value::Null,
    }
}

/// Rows for the table `branch_lifecycle`; the history adds when it was, and who did it.
pub(in crate::tools) fn rows(events: &[BranchEvent]) -> Vec<HistoryRow> {
    let row = |event| HistoryRow { table: "branch_lifecycle".to_owned(), row: json!(event) };
    events.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Settlement};

    fn event() -> BranchEvent {
        BranchEvent {
            event_type: What::Created,
            project_id: "shop".into(),
            branch_id: "ci-pr-7".into(),
            source_branch: Some("staging".into()),
            ttl_seconds: Some(14_400),
            is_protected: Some(false),
            creator_type: Creator::Ci,
            reason: "PR #7".into(),
        }
    }

    #[test]
    fn only_what_happened_is_recorded() {
        let mut change = Change::new("b", "w", Operation::sql("select 1", vec![]));
        event().mark(&mut change);
        let ended = |adopted: bool| Settlement::Applied {
            receipt: Receipt { result: json!({"adopted": adopted}), ..Receipt::default() },
        };
        let (done, found) = (ended(false), ended(true));
        let settled = [
            Settled { change: &change, settlement: Some(&done) },
            Settled { change: &change, settlement: Some(&found) },
            Settled { change: &change, settlement: Some(&Settlement::Moot) },
            Settled { change: &change, settlement: None },
        ];
        let events = happened(&settled);
        assert_eq!(events, [event()]);
        let rows = rows(&events);
        assert_eq!((rows.len(), rows[0].table.as_str()), (1, "branch_lifecycle"));
        assert_eq!(rows[0].row["event_type"], "created");
    }

    #[test]
    fn what_was_told_is_taken_back() {
        let told = event().publication();
        let Inverse::By { operation: Operation::Event { name, .. }, .. } = told.inverse else {
            panic!("{:?}", told.inverse)
        };
        assert_eq!(name, "branch_deleted");
    }
}
