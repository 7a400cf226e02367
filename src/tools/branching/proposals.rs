//! What the tools propose for projects as the API shows them, by the shipped branch policy. The
//! workspace here only answers GET: it is data, and nothing is carried out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::config::Settings;
use crate::kernel::{
    BoxFuture, Change, ChangeSet, Clock, Failure, Inverse, Operation, Receipt, Risk, Settlement,
    Target, Timestamp,
};
use crate::lakebase::ReadApi;
use crate::lakebase::api::NOT_FOUND;
use crate::postgres::PgReader;
use crate::tools::rules::RuleTexts;
use crate::tools::tool::{Settled, ToolOutput};
use crate::tools::{AnyTool, Catalog, ReadContext};

use super::survey::tests::branch;

/// Answers what it was given.
#[derive(Default)]
pub(in crate::tools) struct Answers {
    resources: BTreeMap<String, Value>,
    collections: BTreeMap<String, Vec<Value>>,
}

const SHOP: &str = "/api/2.0/postgres/projects/shop";

impl Answers {
    /// The project `shop` with these branches, each with a compute; it takes snapshots.
    pub(in crate::tools) fn shop(branches: Vec<Value>) -> Self {
        let mut answers = Self::default();
        let project = json!({
            "name": "projects/shop", "uid": "p-1",
            "status": {"default_branch": "projects/shop/branches/production"},
        });
        answers.resources.insert(SHOP.to_owned(), project);
        for branch in &branches {
            let name = branch["name"].as_str().unwrap();
            let endpoint = json!({
                "name": format!("{name}/endpoints/primary"), "uid": "ep-1",
                "status": {
                    "endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": "IDLE",
                    "hosts": {"host": "ep-1.example"},
                },
            });
            let path = format!("/api/2.0/postgres/{name}/endpoints");
            answers.collections.insert(path, vec![endpoint]);
        }
        answers.collections.insert(format!("{SHOP}/branches"), branches);
        answers.collections.insert(format!("{SHOP}/snapshots"), Vec::new());
        answers
    }

    fn without_snapshots(mut self) -> Self {
        self.collections.remove(&format!("{SHOP}/snapshots"));
        self
    }
}

impl ReadApi for Answers {
    fn get<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Value, Failure>> {
        let found = self.resources.get(path).cloned();
        Box::pin(async move { found.ok_or_else(|| Failure::permanent(NOT_FOUND, path)) })
    }

    fn list<'a>(
        &'a self,
        path: &'a str,
        _plural: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        let found = self.collections.get(path).cloned();
        Box::pin(async move { found.ok_or_else(|| Failure::permanent(NOT_FOUND, path)) })
    }

    fn select<'a>(&'a self, _statement: &'a str) -> BoxFuture<'a, Result<Vec<Value>, Failure>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn sleep_until(&self, _at: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// By day, when tiers are not reset without asking.
const DAY: &str = "2026-11-22T12:00:00Z";
const NIGHT: &str = "2026-11-22T02:30:00Z";

fn look<T>(
    answers: &Answers,
    (tool, at): (&str, &str),
    work: impl for<'a> FnOnce(&'a ReadContext<'a>, AnyTool) -> BoxFuture<'a, T>,
) -> T {
    let tool = Catalog::builtin().find(tool).unwrap();
    let pg = PgReader::unavailable(Failure::permanent("test", "no database"));
    let clock = At(Timestamp::parse(at).unwrap());
    let (settings, rules) = (Settings::default(), RuleTexts::of(tool.meta(), |_| None));
    let target = Target { project: Some("shop".into()), ..Target::default() };
    let cx = ReadContext {
        workspace: Some(answers),
        rules: &rules,
        ..ReadContext::new(&pg, &clock, &settings, &target)
    };
    futures::executor::block_on(work(&cx, tool))
}

pub(in crate::tools) fn propose(
    answers: &Answers,
    tool: (&str, &str),
    arguments: Value,
) -> Result<ChangeSet, Failure> {
    look(answers, tool, |cx, tool| match tool {
        AnyTool::Write(tool) => tool.propose(cx, arguments),
        AnyTool::Read(_) => panic!("it only looks"),
    })
}

fn read(answers: &Answers, tool: &str, arguments: Value) -> ToolOutput {
    look(answers, (tool, DAY), |cx, tool| match tool {
        AnyTool::Read(tool) => tool.read(cx, arguments),
        AnyTool::Write(_) => panic!("it changes"),
    })
    .unwrap()
}

fn report(tool: &str, set: &ChangeSet, resources: &[Value]) -> ToolOutput {
    let AnyTool::Write(tool) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
    let ended = |resource: &Value| Settlement::Applied {
        receipt: Receipt {
            result: json!({"adopted": false, "resource": resource}),
            ..Receipt::default()
        },
    };
    let null = Value::Null;
    let ended: Vec<_> =
        (0..set.changes.len()).map(|index| ended(resources.get(index).unwrap_or(&null))).collect();
    let pairs = set.changes.iter().zip(&ended);
    let settled: Vec<_> =
        pairs.map(|(change, end)| Settled { change, settlement: Some(end) }).collect();
    tool.report(&settled).unwrap()
}

fn sent(change: &Change) -> String {
    match &change.operation {
        Operation::Api(call) => format!("{} {}", call.verb.as_str(), call.path_and_query()),
        other => other.to_string(),
    }
}

fn all(set: &ChangeSet) -> Vec<String> {
    set.changes.iter().map(sent).collect()
}

fn three() -> Vec<Value> {
    vec![
        branch("production", None, &json!({"default": true, "is_protected": true})),
        branch("staging", Some("production"), &json!({})),
        branch("ci-pr-7", Some("staging"), &json!({"expire_time": "2026-11-22T11:00:00Z"})),
    ]
}

#[test]
fn a_branch_is_proposed_with_the_lifetime_of_its_prefix() {
    let shop = Answers::shop(three());
    let arguments = json!({"branch_name": "QA-release-v2.3.0", "source_branch": "staging"});
    let set = propose(&shop, ("create_branch", DAY), arguments).unwrap();
    assert_eq!(
        all(&set),
        [
            format!("POST {SHOP}/branches?branch_id=qa-release-v2-3-0"),
            "publish event branch_created".to_owned(),
        ]
    );
    let Operation::Api(call) = &set.changes[0].operation else { panic!() };
    assert_eq!(call.body.as_ref().unwrap()["spec"]["ttl"], "1209600s");
    let made = json!({"uid": "br-new", "status": {"expire_time": "2026-12-06T12:00:00Z"}});
    let output = report("create_branch", &set, &[made]);
    assert_eq!(output.value["branch"], "qa-release-v2-3-0");
    assert_eq!(output.value["requested"], "QA-release-v2.3.0");
    assert_eq!((&output.value["created"], &output.value["uid"]), (&json!(true), &json!("br-new")));
    assert_eq!(output.history.len(), 1);
    assert_eq!(output.history[0].row["event_type"], "created");
}

#[test]
fn the_policy_refuses_asks_and_adopts() {
    let shop = Answers::shop(three());
    let create = |arguments| propose(&shop, ("create_branch", DAY), arguments);
    let refused = create(json!({"branch_name": "feat-x", "no_expiry": true})).unwrap_err();
    assert_eq!(refused.code, "branch_policy::refused");
    assert!(refused.message.contains("must expire"), "{}", refused.message);
    let asked = create(json!({"branch_name": "feat-x", "ttl": "20d"})).unwrap();
    assert_eq!(asked.risk(), Risk::High);
    assert!(asked.changes[0].why.contains("usual is 7days"), "{}", asked.changes[0].why);
    let there = create(json!({"branch_name": "ci-pr-7", "source_branch": "staging"})).unwrap();
    assert_eq!((there.changes.len(), &there.changes[0].inverse), (1, &Inverse::Unneeded));
    let other = create(json!({"branch_name": "ci-pr-7"})).unwrap_err();
    assert_eq!(other.code, "lakebase::exists_otherwise");
    let unknown = create(json!({"branch_name": "feat-x", "source_branch": "nowhere"})).unwrap_err();
    assert_eq!(unknown.code, "branching::no_branch");
}

#[test]
fn an_eleventh_branch_is_refused_before_anything_happens() {
    let mut branches = three();
    for number in 0..7 {
        branches.push(branch(&format!("feat-{number}"), Some("staging"), &json!({})));
    }
    branches.push(branch("old", Some("staging"), &json!({"current_state": "ARCHIVED"})));
    let shop = Answers::shop(branches);
    let full = propose(&shop, ("create_branch_on_pr", DAY), json!({"pr_number": 8})).unwrap_err();
    assert_eq!(full.code, "branching::full");
    assert_eq!(read(&shop, "monitor_branch_count", json!({})).value["branch_count"], 10);
}

#[test]
fn what_is_overdue_goes_and_what_is_held_stays() {
    let late = json!({"expire_time": "2026-11-22T11:00:00Z"});
    let held = json!({"expire_time": "2026-11-22T11:00:00Z", "is_protected": true});
    let mut branches = three();
    branches.push(branch("feat-parent", Some("staging"), &late));
    branches.push(branch("feat-child", Some("feat-parent"), &late));
    branches.push(branch("feat-kept", Some("staging"), &late));
    branches.push(branch("feat-young", Some("feat-kept"), &json!({})));
    branches.push(branch("feat-held", Some("staging"), &held));
    branches.push(branch("feat-fresh", Some("staging"), &json!({})));
    branches[8]["create_time"] = json!("2026-11-20T00:00:00Z");
    branches[6]["create_time"] = json!("2026-11-20T00:00:00Z");
    let shop = Answers::shop(branches);
    let set = propose(&shop, ("enforce_ttl_policies", DAY), json!({})).unwrap();
    let calls: Vec<_> = all(&set).into_iter().filter(|call| !call.starts_with("publish")).collect();
    let delete = |id: &str| format!("DELETE {SHOP}/branches/{id}?purge=true");
    let expire = |id: &str| format!("PATCH {SHOP}/branches/{id}?update_mask=spec.expiration");
    assert_eq!(
        calls,
        [
            delete("ci-pr-7"),
            delete("feat-child"),
            delete("feat-parent"),
            expire("feat-fresh"),
            expire("feat-young"),
        ]
    );
    let output = report("enforce_ttl_policies", &set, &[]).value;
    assert_eq!(output["branches_deleted"], json!(["ci-pr-7", "feat-child", "feat-parent"]));
    let patient = propose(&shop, ("enforce_ttl_policies", DAY), json!({"grace": "3h"})).unwrap();
    assert!(all(&patient).iter().all(|call| !call.starts_with("DELETE")));
}

#[test]
fn a_closed_pull_request_takes_its_branch_with_it_once() {
    let shop = Answers::shop(three());
    let close = |number: u64| {
        propose(&shop, ("delete_branch_on_pr_close", DAY), json!({"pr_number": number})).unwrap()
    };
    let set = close(7);
    assert_eq!(all(&set)[0], format!("DELETE {SHOP}/branches/ci-pr-7?purge=true"));
    let output = report("delete_branch_on_pr_close", &set, &[]);
    assert_eq!((output.value["deleted"].clone(), output.history.len()), (json!(true), 1));
    let gone = close(8);
    let output = report("delete_branch_on_pr_close", &gone, &[]);
    assert_eq!(output.value["already_gone"], true);
    assert_eq!(
        (gone.changes.len(), output.history.len()),
        (1, 0),
        "nothing happened, nothing is told"
    );
}

#[test]
fn one_branch_is_protected_and_to_end_that_asks() {
    let shop = Answers::shop(three());
    let protect = |arguments| propose(&shop, ("protect_branch", DAY), arguments);
    let full = protect(json!({"branch_id": "staging"})).unwrap_err();
    assert!(full.message.contains("`production`"), "{}", full.message);
    let again = protect(json!({"branch_id": "production"})).unwrap();
    assert_eq!(again.changes.len(), 1, "it is so already: nobody is told");
    let ended = protect(json!({"branch_id": "production", "protected": false})).unwrap();
    assert_eq!(ended.risk(), Risk::High);
}

#[test]
fn a_reset_asks_by_day_and_without_a_snapshot() {
    let mut branches = three();
    branches.truncate(2);
    let reset = |answers: &Answers, at| {
        propose(answers, ("reset_branch_from_parent", at), json!({"branch_id": "staging"}))
    };
    let shop = Answers::shop(branches.clone());
    let night = reset(&shop, NIGHT).unwrap();
    assert_eq!(night.risk(), Risk::Medium);
    assert_eq!(all(&night)[0], format!("POST {SHOP}/snapshots?snapshot_id=reset-br-staging"));
    assert_eq!(night.digest, reset(&shop, NIGHT).unwrap().digest, "the same set each time");
    assert_eq!(reset(&shop, DAY).unwrap().risk(), Risk::High);
    let bare = reset(&Answers::shop(branches).without_snapshots(), NIGHT).unwrap();
    assert_eq!(bare.risk(), Risk::High);
    assert!(matches!(bare.changes[0].inverse, Inverse::Impossible { .. }));
    let with_child = reset(&Answers::shop(three()), NIGHT).unwrap_err();
    assert!(with_child.message.contains("ci-pr-7"), "{}", with_child.message);
    let made = json!({"uid": "br-new"});
    let compute = json!({"uid": "ep-2", "status": {"hosts": {"host": "ep-2.example"}}});
    let null = Value::Null;
    let output =
        report("reset_branch_from_parent", &night, &[null.clone(), null, made, compute]).value;
    assert_eq!((&output["reset"], &output["uid"]), (&json!(true), &json!("br-new")));
    assert_eq!(output["old_uid"], "br-staging");
    assert_eq!(output["endpoints"][0]["host"], "ep-2.example");
    assert_eq!(output["endpoints"][0]["old_host"], "ep-1.example");
    assert_eq!(output["passwords_changed"], true);
}

#[test]
fn a_project_is_made_with_its_tree_and_adopted_the_second_time() {
    let nothing = Answers::default();
    let arguments = json!({"domain": "shop", "project_name": "shop"});
    let tool = ("provision_lakebase_project", DAY);
    let set = propose(&nothing, tool, arguments.clone()).unwrap();
    let calls = all(&set);
    assert_eq!(
        calls[..4],
        [
            "POST /api/2.0/postgres/projects?project_id=shop".to_owned(),
            format!("PATCH {SHOP}/branches/production?update_mask=spec.is_protected"),
            format!("POST {SHOP}/branches?branch_id=staging"),
            format!("POST {SHOP}/branches?branch_id=development"),
        ]
    );
    assert_eq!(calls.last().unwrap(), "publish event provisioning_complete");
    assert_eq!(set.risk(), Risk::Low);
    for change in &set.changes[2..4] {
        let Operation::Api(call) = &change.operation else { panic!() };
        let parent = &call.body.as_ref().unwrap()["spec"]["source_branch"];
        assert_eq!(parent, "projects/shop/branches/production");
    }
    let output = report("provision_lakebase_project", &set, &[json!({"uid": "p-1"})]);
    assert_eq!(output.value["branches"].as_array().unwrap().len(), 3);
    assert_eq!(output.history.len(), 3);
    let mut tree = three();
    tree[2] = branch("development", Some("production"), &json!({}));
    let again = propose(&Answers::shop(tree), tool, arguments).unwrap();
    for change in again.changes.iter().filter(|change| sent(change).starts_with("POST")) {
        assert_eq!(change.inverse, Inverse::Unneeded, "{}", change.object);
    }
}

#[test]
fn the_history_takes_every_row() {
    let shop = Answers::shop(three());
    let output = read(&shop, "monitor_branch_count", json!({}));
    assert_eq!(output.history[0].table, "lakebase_metrics");
    let facts =
        read(&shop, "inspect_project", json!({"branching_pattern": "cicd_ephemeral"})).value;
    assert_eq!((&facts["ready"], &facts["missing"]), (&json!(true), &json!([])));
}
