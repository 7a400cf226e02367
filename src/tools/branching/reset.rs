//! Setting a branch back to its parent. PURE.
//!
//! There is no call for it. The branch is deleted and made again under its name, with the time that it
//! had left and with its computes as they were. A snapshot is taken before, so that it can be undone.
//! Every change names what it works on by ids that are known beforehand, so all of it is one set.

use serde_json::{Map, Value, json};

use super::capacity::MOST_SNAPSHOTS;
use super::change::{Expiry, NewBranch, Point, called, delete, seconds, snapshot_name, undone_by};
use super::survey::Known;
use crate::kernel::{ApiCall, ApiState, Change, Inverse, Operation, Recovery, Span};
use crate::lakebase::name::path_of;
use crate::lakebase::resource::{EndpointSettings, EndpointType};
use crate::lakebase::{BranchName, Endpoint, Snapshot};

/// Where the new branch's own compute is: the platform gives every branch one of this id.
pub(in crate::tools) const PRIMARY: &str = "primary";

/// Whether a snapshot can be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tools) enum Keep {
    /// Under this id.
    Snapshot(String),
    /// No, and why not.
    Nothing(String),
}

impl Keep {
    /// What the project's snapshots allow; `None`: the workspace has none.
    pub(in crate::tools) fn of(branch: &Known, snapshots: Option<&[Snapshot]>) -> Self {
        let Some(snapshots) = snapshots else {
            return Self::Nothing("this workspace takes no snapshots".to_owned());
        };
        // One for each incarnation of the branch: the same however often it is proposed.
        let uid = branch.branch.uid.to_ascii_lowercase();
        let mut id = format!("reset-{uid}");
        id.truncate(63);
        let id = id.trim_end_matches('-').to_owned();
        let is_there = |one: &Snapshot| one.name.ends_with(&format!("/snapshots/{id}"));
        if snapshots.len() >= MOST_SNAPSHOTS && !snapshots.iter().any(is_there) {
            return Self::Nothing(format!("the project has {} snapshots already", snapshots.len()));
        }
        Self::Snapshot(id)
    }
}

/// What is to be set back.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Reset<'a> {
    /// Its name.
    pub(in crate::tools) name: BranchName,
    /// Its parent.
    pub(in crate::tools) source: BranchName,
    /// The branch as it is.
    pub(in crate::tools) known: &'a Known,
    /// Its computes as they are.
    pub(in crate::tools) endpoints: &'a [Endpoint],
    /// Whether a snapshot can be taken before.
    pub(in crate::tools) keep: Keep,
    /// How long the snapshot is kept.
    pub(in crate::tools) kept_for: Span,
}

impl Reset<'_> {
    fn again(&self) -> NewBranch {
        NewBranch {
            name: self.name.clone(),
            source: self.source.clone(),
            point: Point::Head,
            expiry: self.known.branch.status.expire_time.map_or(Expiry::Never, Expiry::At),
        }
    }

    /// The changes, in order: keep, delete, make again, give back the computes' settings.
    pub(in crate::tools) fn changes(&self, why: &str) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut removal = delete(&self.name, self.known, why.to_owned());
        match &self.keep {
            Keep::Snapshot(id) => {
                let snapshot = snapshot_name(&self.name.parent(), id);
                changes.push(self.snapshot(&snapshot, id));
                removal.inverse = undone_by(self.again().restoring(&snapshot));
            }
            Keep::Nothing(why) => {
                removal.inverse = Inverse::Impossible { why: why.clone() };
            }
        }
        changes.push(removal);
        let text = format!(
            "`{}` begins again as its parent `{}` is",
            self.name.branch, self.source.branch
        );
        changes.push(self.again().change(None, text));
        changes.extend(self.endpoints.iter().map(|endpoint| self.endpoint(endpoint)));
        changes
    }

    fn snapshot(&self, snapshot: &str, id: &str) -> Change {
        let source = self.name.to_string();
        let shown = json!({ "status": { "source_branch": source } });
        let call = ApiCall::post(self.name.parent().snapshots_path())
            .query("snapshot_id", id)
            .body(json!({ "spec": { "source_branch": source, "ttl": seconds(self.kept_for) } }))
            .proof(ApiState::present(path_of(snapshot), shown));
        let why = format!(
            "undoing makes `{}` again from it; it goes away after {}",
            self.name.branch, self.kept_for
        );
        // It expires by itself, and undoing needs it to the end.
        called(format!("snapshot {id}"), why, call)
    }

    /// Gives a compute of the new branch the settings of the old one.
    fn endpoint(&self, old: &Endpoint) -> Change {
        if old.status.endpoint_type == EndpointType::ReadOnly {
            return self.read_only(old);
        }
        let endpoint = self.name.endpoint(PRIMARY);
        let (mask, spec, shown) = settings_of(old);
        let spec = with(spec, "endpoint_type", json!("ENDPOINT_TYPE_READ_WRITE"));
        let call = ApiCall::patch(endpoint.path())
            .query("update_mask", mask)
            .body(json!({ "name": endpoint.to_string(), "spec": spec }))
            .proof(ApiState::present(endpoint.path(), json!({ "status": shown })));
        let why = "the compute keeps its size and its habits".to_owned();
        let mut change = called(format!("endpoint {PRIMARY} of {}", self.name.branch), why, call);
        change.recovery = Recovery::Repeatable;
        change.facts = facts(old, PRIMARY);
        change
    }

    fn read_only(&self, old: &Endpoint) -> Change {
        let endpoint = self.name.endpoint(old.id());
        let (_, spec, _) = settings_of(old);
        let spec = with(spec, "endpoint_type", json!("ENDPOINT_TYPE_READ_ONLY"));
        let shown = json!({ "status": { "endpoint_type": "ENDPOINT_TYPE_READ_ONLY" } });
        let call = ApiCall::post(self.name.collection_path("endpoints"))
            .query("endpoint_id", old.id())
            .body(json!({ "spec": spec }))
            .proof(ApiState::present(endpoint.path(), shown));
        let why = "the branch keeps its readers".to_owned();
        let mut change =
            called(format!("endpoint {} of {}", old.id(), self.name.branch), why, call);
        change.facts = facts(old, old.id());
        change
    }
}

/// What the report compares with.
fn facts(old: &Endpoint, endpoint: &str) -> Value {
    json!({ "endpoint": endpoint, "old_uid": old.uid, "old_host": old.status.hosts.host })
}

fn with(mut spec: Value, name: &str, value: Value) -> Value {
    spec[name] = value;
    spec
}

/// The settings of a compute: the mask that names them, how they are set, and how they are shown.
fn settings_of(endpoint: &Endpoint) -> (String, Value, Value) {
    let status = &endpoint.status;
    let (mut mask, mut spec, mut shown) = (Vec::new(), Map::new(), Map::new());
    let mut set = |path: &'static str, name: &str, value: Value| {
        mask.push(path);
        spec.insert(name.to_owned(), value.clone());
        shown.insert(name.to_owned(), value);
    };
    if let Some(least) = status.autoscaling_limit_min_cu {
        set("spec.autoscaling_limit_min_cu", "autoscaling_limit_min_cu", json!(least));
    }
    if let Some(most) = status.autoscaling_limit_max_cu {
        set("spec.autoscaling_limit_max_cu", "autoscaling_limit_max_cu", json!(most));
    }
    if status.disabled {
        set("spec.disabled", "disabled", json!(true));
    }
    let EndpointSettings { pg_settings, .. } = &status.settings;
    if !pg_settings.is_empty() {
        set("spec.settings", "settings", json!({ "pg_settings": pg_settings }));
    }
    mask.push("spec.suspension");
    if let Some(after) = status.suspend_timeout_duration {
        let after = json!(seconds(Span(after)));
        spec.insert("suspend_timeout_duration".to_owned(), after.clone());
        shown.insert("suspend_timeout_duration".to_owned(), after);
    } else {
        spec.insert("no_suspension".to_owned(), json!(true));
        shown.insert("suspend_timeout_duration".to_owned(), Value::Null);
    }
    (mask.join(","), Value::Object(spec), Value::Object(shown))
}

/// Whether a set can be undone: nothing in it is gone for good.
pub(in crate::tools) fn is_undoable(changes: &[Change]) -> bool {
    let lost = |change: &Change| matches!(change.inverse, Inverse::Impossible { .. });
    !changes.iter().any(|change| lost(change) && matches!(change.operation, Operation::Api(_)))
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::{branch, survey};
    use super::*;

    fn endpoint(id: &str, status: &Value) -> Endpoint {
        let name = format!("projects/shop/branches/staging/endpoints/{id}");
        serde_json::from_value(json!({"name": name, "uid": format!("ep-{id}"), "status": status}))
            .unwrap()
    }

    fn calls(changes: &[Change]) -> Vec<String> {
        let call = |change: &Change| match &change.operation {
            Operation::Api(call) => format!("{} {}", call.verb.as_str(), call.path_and_query()),
            other => panic!("{other}"),
        };
        changes.iter().map(call).collect()
    }

    fn with_reset<T>(keep: Keep, work: impl FnOnce(&Reset<'_>) -> T) -> T {
        let at = json!({"expire_time": "2026-12-01T00:00:00Z"});
        let survey = survey(vec![branch("staging", Some("production"), &at)]);
        let writer = json!({
            "endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "autoscaling_limit_min_cu": 0.5,
            "autoscaling_limit_max_cu": 2.0, "settings": {"pg_settings": {"work_mem": "8MB"}},
        });
        let reader = json!({
            "endpoint_type": "ENDPOINT_TYPE_READ_ONLY", "suspend_timeout_duration": "300s",
        });
        let endpoints = [endpoint("main", &writer), endpoint("reader", &reader)];
        work(&Reset {
            name: BranchName::new("shop", "staging"),
            source: BranchName::new("shop", "production"),
            known: survey.need("staging").unwrap(),
            endpoints: &endpoints,
            keep,
            kept_for: Span::from_secs(604_800),
        })
    }

    #[test]
    fn it_keeps_deletes_and_makes_again() {
        let keep = Keep::Snapshot("reset-br-staging".to_owned());
        let changes = with_reset(keep, |reset| reset.changes("nightly"));
        let base = "/api/2.0/postgres/projects/shop";
        let mask = "spec.autoscaling_limit_min_cu%2Cspec.autoscaling_limit_max_cu%2C\
                    spec.settings%2Cspec.suspension";
        assert_eq!(
            calls(&changes),
            [
                format!("POST {base}/snapshots?snapshot_id=reset-br-staging"),
                format!("DELETE {base}/branches/staging?purge=true"),
                format!("POST {base}/branches?branch_id=staging"),
                format!("PATCH {base}/branches/staging/endpoints/primary?update_mask={mask}"),
                format!("POST {base}/branches/staging/endpoints?endpoint_id=reader"),
            ]
        );
        assert!(is_undoable(&changes));
        let Inverse::By { operation: Operation::Api(back), .. } = &changes[1].inverse else {
            panic!("{:?}", changes[1].inverse)
        };
        let spec = &back.body.as_ref().unwrap()["spec"];
        assert_eq!(spec["source_snapshot"], "projects/shop/snapshots/reset-br-staging");
        assert_eq!(spec["expire_time"], "2026-12-01T00:00:00.000Z", "the time that was left");
        let Operation::Api(compute) = &changes[3].operation else { panic!() };
        assert_eq!(compute.body.as_ref().unwrap()["spec"]["no_suspension"], true);
    }

    #[test]
    fn without_a_snapshot_it_cannot_be_undone() {
        let changes = with_reset(Keep::Nothing("none here".into()), |reset| reset.changes("w"));
        assert!(calls(&changes)[0].starts_with("DELETE"));
        assert!(!is_undoable(&changes));
    }

    #[test]
    fn a_snapshot_needs_a_place() {
        let survey = survey(vec![branch("staging", Some("production"), &json!({}))]);
        let known = survey.need("staging").unwrap();
        let named = |id: &str| -> Snapshot {
            let name = format!("projects/shop/snapshots/{id}");
            serde_json::from_value(json!({ "name": name })).unwrap()
        };
        assert!(matches!(Keep::of(known, None), Keep::Nothing(_)));
        assert_eq!(Keep::of(known, Some(&[])), Keep::Snapshot("reset-br-staging".into()));
        let mut full: Vec<_> = (0..10).map(|number| named(&format!("s{number}"))).collect();
        assert!(matches!(Keep::of(known, Some(&full)), Keep::Nothing(_)));
        full[0] = named("reset-br-staging");
        assert!(matches!(Keep::of(known, Some(&full)), Keep::Snapshot(_)), "it is there already");
    }
}
