//! Changes of projects and branches, each a call of the API with its proof and its undoing. PURE.

use serde_json::{Value, json};

use super::survey::Known;
use crate::kernel::{
    ApiCall, ApiState, Change, Inverse, Operation, Recovery, Risk, Span, Timestamp,
};
use crate::lakebase::{BranchName, ProjectName};

/// When a branch goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools) enum Expiry {
    /// It stays.
    Never,
    /// That long after it was made.
    After(Span),
    /// Then.
    At(Timestamp),
}

impl Expiry {
    /// The one field of the specification that says so: the API wants exactly one.
    fn put_into(self, spec: &mut Value) {
        match self {
            Self::Never => spec["no_expiry"] = json!(true),
            Self::After(ttl) => spec["ttl"] = json!(seconds(ttl)),
            Self::At(at) => spec["expire_time"] = json!(at),
        }
    }

    /// The same for a policy's lifetime.
    pub(in crate::tools) fn of(ttl: Option<Span>) -> Self {
        ttl.map_or(Self::Never, Self::After)
    }

    /// The lifetime in seconds, where it is one.
    pub(in crate::tools) fn ttl_seconds(self) -> Option<u64> {
        match self {
            Self::After(ttl) => Some(ttl.0.as_secs()),
            Self::Never | Self::At(_) => None,
        }
    }
}

/// From where on its parent a branch begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools) enum Point {
    /// From the parent as it is.
    #[default]
    Head,
    /// From the parent as it was then.
    Time(Timestamp),
    /// From a place in the parent's log.
    Lsn(String),
}

/// A branch to be made.
#[derive(Clone, Debug)]
pub(in crate::tools) struct NewBranch {
    /// Its name.
    pub(in crate::tools) name: BranchName,
    /// Its parent.
    pub(in crate::tools) source: BranchName,
    /// From where on the parent it begins.
    pub(in crate::tools) point: Point,
    /// When it goes away.
    pub(in crate::tools) expiry: Expiry,
}

/// A length of time as the API writes it.
pub(in crate::tools) fn seconds(span: Span) -> String {
    if span.0.subsec_nanos() == 0 {
        format!("{}s", span.0.as_secs())
    } else {
        format!("{}s", span.0.as_secs_f64())
    }
}

fn api(call: ApiCall) -> Operation {
    Operation::Api(call)
}

/// Undone by a call.
pub(in crate::tools) fn undone_by(call: ApiCall) -> Inverse {
    Inverse::By { operation: api(call), recovery: Recovery::Probe }
}

/// A change that is a call. What proves it is compared first, so it can be repeated.
pub(in crate::tools) fn called(
    object: impl Into<String>,
    why: impl Into<String>,
    call: ApiCall,
) -> Change {
    let mut change = Change::new(object, why, api(call));
    change.recovery = Recovery::Probe;
    change
}

impl NewBranch {
    fn call(&self) -> ApiCall {
        let mut spec = json!({ "source_branch": self.source.to_string() });
        match &self.point {
            Point::Head => {}
            Point::Time(at) => spec["source_branch_time"] = json!(at),
            Point::Lsn(lsn) => spec["source_branch_lsn"] = json!(lsn),
        }
        self.expiry.put_into(&mut spec);
        let lineage = json!({
            "status": { "source_branch": self.source.to_string(), "current_state": "READY" },
        });
        ApiCall::post(self.name.parent().branches_path())
            .query("branch_id", self.name.branch.clone())
            .body(json!({ "spec": spec }))
            .proof(ApiState::present(self.name.path(), lineage))
    }

    /// Makes the branch, or adopts one of that name and parent. What was there before is left there when
    /// the change is undone.
    pub(in crate::tools) fn change(&self, existing: Option<&Known>, why: String) -> Change {
        let mut change = called(format!("branch {}", self.name.branch), why, self.call());
        if existing.is_none() {
            let parent = json!({ "status": { "source_branch": self.source.to_string() } });
            let ours = ApiState::present(self.name.path(), parent);
            change.inverse = undone_by(delete_call(&self.name).only_if(ours));
        }
        change
    }

    /// Makes the branch from a snapshot instead of from its parent: what brings a deleted branch back.
    pub(in crate::tools) fn restoring(&self, snapshot: &str) -> ApiCall {
        let mut spec = json!({ "source_snapshot": snapshot });
        self.expiry.put_into(&mut spec);
        let restored = json!({ "status": { "source_snapshot": snapshot } });
        ApiCall::post(self.name.parent().branches_path())
            .query("branch_id", self.name.branch.clone())
            .body(json!({ "spec": spec }))
            .proof(ApiState::present(self.name.path(), restored))
    }
}

/// Deletes a branch for good, with its computes.
fn delete_call(name: &BranchName) -> ApiCall {
    ApiCall::delete(name.path()).query("purge", "true")
}

/// Deletes exactly this branch: one that was made again under its name is left alone.
pub(in crate::tools) fn delete(name: &BranchName, known: &Known, why: String) -> Change {
    let same = ApiState::present(name.path(), json!({ "uid": known.branch.uid }));
    let call = delete_call(name).only_if(same);
    let mut change = called(format!("branch {}", name.branch), why, call);
    change.inverse =
        Inverse::Impossible { why: "what only this branch held is gone with it".to_owned() };
    change.cost = [("branches_deleted".to_owned(), 1)].into();
    change
}

/// Sees to it that a branch that was not found stays so.
pub(in crate::tools) fn delete_absent(name: &BranchName, why: String) -> Change {
    called(format!("branch {}", name.branch), why, delete_call(name))
}

/// Changes fields of a branch. `mask` names them, `spec` sets them, `shown` is how its status shows it.
pub(in crate::tools) fn patch(
    name: &BranchName,
    uid: &str,
    mask: &str,
    (spec, shown): (Value, Value),
) -> ApiCall {
    let mut call = ApiCall::patch(name.path())
        .query("update_mask", mask)
        .body(json!({ "name": name.to_string(), "spec": spec }))
        .proof(ApiState::present(name.path(), json!({ "status": shown })));
    if !uid.is_empty() {
        call = call.only_if(ApiState::present(name.path(), json!({ "uid": uid })));
    }
    call
}

/// Has the platform protect a branch, or not any more. A protected branch cannot expire, so the expiry
/// of one that does is taken away, and given back when that is undone.
pub(in crate::tools) fn protect(
    name: &BranchName,
    (uid, expires): (&str, Option<Timestamp>),
    protected: bool,
    why: String,
) -> Change {
    let state = |on: bool, expiry: Option<Expiry>| {
        let mut spec = json!({ "is_protected": on });
        let mask = if let Some(expiry) = expiry {
            expiry.put_into(&mut spec);
            "spec.is_protected,spec.expiration"
        } else {
            "spec.is_protected"
        };
        let mut shown = json!({ "is_protected": on });
        if let Some(Expiry::At(at)) = expiry {
            shown["expire_time"] = json!(at);
        }
        patch(name, uid, mask, (spec, shown))
    };
    let lifted = expires.filter(|_| protected);
    let call = state(protected, lifted.map(|_| Expiry::Never));
    let mut change = called(format!("branch {}", name.branch), why, call);
    change.risk = if protected { Risk::Medium } else { Risk::High };
    change.inverse = undone_by(state(!protected, lifted.map(Expiry::At)));
    change
}

/// Sets when a branch expires.
pub(in crate::tools) fn expire_at(
    name: &BranchName,
    known: &Known,
    at: Timestamp,
    why: String,
) -> Change {
    let set = |expiry: Expiry, shown: Value| {
        let mut spec = json!({});
        expiry.put_into(&mut spec);
        patch(name, &known.branch.uid, "spec.expiration", (spec, shown))
    };
    let call = set(Expiry::At(at), json!({ "expire_time": at }));
    let mut change = called(format!("branch {}", name.branch), why, call);
    change.inverse = undone_by(match known.branch.status.expire_time {
        Some(before) => set(Expiry::At(before), json!({ "expire_time": before })),
        None => set(Expiry::Never, json!({ "expire_time": null })),
    });
    change
}

/// The path of a project's snapshot.
pub(in crate::tools) fn snapshot_name(project: &ProjectName, snapshot: &str) -> String {
    format!("{project}/snapshots/{snapshot}")
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{branch, survey};
    use super::*;

    fn call(change: &Change) -> &ApiCall {
        match &change.operation {
            Operation::Api(call) => call,
            other => panic!("{other}"),
        }
    }

    fn undoing(change: &Change) -> &ApiCall {
        match &change.inverse {
            Inverse::By { operation: Operation::Api(call), .. } => call,
            other => panic!("{other:?}"),
        }
    }

    fn feature(expiry: Expiry) -> NewBranch {
        NewBranch {
            name: BranchName::new("shop", "feat-cart"),
            source: BranchName::new("shop", "staging"),
            point: Point::Head,
            expiry,
        }
    }

    #[test]
    fn exactly_one_expiry_is_said() {
        let at = Timestamp::parse("2026-12-01T00:00:00Z").unwrap();
        let week = Expiry::After(Span::from_secs(604_800));
        for (expiry, name) in
            [(Expiry::Never, "no_expiry"), (week, "ttl"), (Expiry::At(at), "expire_time")]
        {
            let change = feature(expiry).change(None, "why".into());
            let spec = call(&change).body.as_ref().unwrap()["spec"].clone();
            let said: Vec<_> = ["no_expiry", "ttl", "expire_time"]
                .into_iter()
                .filter(|one| spec.get(one).is_some())
                .collect();
            assert_eq!(said, [name]);
        }
        assert_eq!(seconds(Span::from_secs(14_400)), "14400s");
    }

    #[test]
    fn what_was_there_before_is_not_deleted_by_undoing() {
        let survey = survey(vec![branch("feat-cart", Some("staging"), &json!({}))]);
        let made = feature(Expiry::Never).change(None, "why".into());
        assert_eq!(undoing(&made).query["purge"], "true");
        assert!(undoing(&made).only_if.is_some());
        let adopted = feature(Expiry::Never).change(survey.branch("feat-cart"), "why".into());
        assert_eq!(adopted.inverse, Inverse::Unneeded);
        assert_eq!(call(&made), call(&adopted));
    }

    #[test]
    fn deleting_hits_no_other_branch_of_the_name() {
        let survey = survey(vec![branch("ci-pr-7", Some("staging"), &json!({}))]);
        let name = BranchName::new("shop", "ci-pr-7");
        let change = delete(&name, survey.need("ci-pr-7").unwrap(), "closed".into());
        let only_if = call(&change).only_if.clone().unwrap();
        assert_eq!(only_if, ApiState::present(name.path(), json!({"uid": "br-ci-pr-7"})));
        assert_eq!(change.cost["branches_deleted"], 1);
    }

    #[test]
    fn protecting_takes_the_expiry_away_and_undoing_gives_it_back() {
        let at = Timestamp::parse("2026-12-01T00:00:00Z").unwrap();
        let name = BranchName::new("shop", "development");
        let change = protect(&name, ("br-1", Some(at)), true, "why".into());
        let sent = call(&change);
        assert_eq!(sent.query["update_mask"], "spec.is_protected,spec.expiration");
        assert_eq!(sent.body.as_ref().unwrap()["spec"]["no_expiry"], true);
        let back = undoing(&change).body.as_ref().unwrap();
        assert_eq!(back["spec"]["expire_time"], "2026-12-01T00:00:00.000Z");
        assert_eq!(back["spec"]["is_protected"], false);
        let plain = protect(&name, ("br-1", None), false, "why".into());
        assert_eq!(call(&plain).query["update_mask"], "spec.is_protected");
        assert_eq!((change.risk, plain.risk), (Risk::Medium, Risk::High));
    }
}
