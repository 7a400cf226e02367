//! The rules of branches: what they begin with, when they expire, which have to stay, how many there may be.

use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::fields;
use super::limits;
use super::record::{Kind, Record};
use super::store::Tx;
use crate::emulator::fleet::BranchPoint;
use crate::kernel::Timestamp;
use crate::lakebase::resource::duration;

/// Whether it is put away: it then does not count, and a login brings it back.
pub(super) fn is_archived(record: &Record) -> bool {
    record.facts.get("archived").is_some_and(|it| it == true)
}

/// Finds what the branch is made from, and where in its past.
pub(super) fn choose_source(
    tx: &Tx<'_>,
    project: &Record,
    branch: &mut Record,
    now: Timestamp,
) -> Result<(), ApiError> {
    let place = format!("{}/", project.name);
    if let Some(snapshot) = branch.text("source_snapshot").map(str::to_owned) {
        let others = ["source_branch", "source_branch_time", "source_branch_lsn"];
        if others.iter().any(|other| branch.text(other).is_some()) {
            let text = "'spec.source_snapshot' excludes 'spec.source_branch' and its time and LSN";
            return Err(ApiError::invalid(text));
        }
        let found = tx.need_alive(&snapshot)?;
        if found.kind != Kind::Snapshot || !snapshot.starts_with(&place) || !found.ready {
            return Err(ApiError::invalid("Field 'spec.source_snapshot' is no usable snapshot"));
        }
        branch.facts.insert("source_uid".to_owned(), json!(found.uid));
        branch.facts.insert(
            "inherits".to_owned(),
            found.facts.get("inherits").cloned().unwrap_or_default(),
        );
        return Ok(());
    }
    let default = || project.text("default_branch").unwrap_or_default().to_owned();
    let source = branch.text("source_branch").map_or_else(default, str::to_owned);
    let found = tx.need_alive(&source)?;
    if found.kind != Kind::Branch || !source.starts_with(&place) {
        return Err(ApiError::invalid("Field 'spec.source_branch' is no branch of this project"));
    }
    if found.name == branch.name {
        return Err(ApiError::invalid("Field 'spec.source_branch' is the branch itself"));
    }
    if !found.ready {
        return Err(ApiError::forbidden_by_state("the source branch is not ready"));
    }
    check_point(branch, &found, now)?;
    let inherited: Vec<Record> = ["roles", "databases"]
        .iter()
        .map(|plural| tx.list::<Record>(&format!("{source}/{plural}")))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    branch.facts.insert("source_uid".to_owned(), json!(found.uid));
    branch.facts.insert("inherits".to_owned(), json!(inherited));
    branch.facts.insert("new_passwords".to_owned(), json!(found.is("is_protected")));
    branch.spec.insert("source_branch".to_owned(), json!(source));
    Ok(())
}

fn check_point(branch: &Record, source: &Record, now: Timestamp) -> Result<(), ApiError> {
    let (time, lsn) = (branch.time("source_branch_time"), branch.text("source_branch_lsn"));
    if time.is_some() && lsn.is_some() {
        let text = "only one of 'spec.source_branch_time' and 'spec.source_branch_lsn' can be set";
        return Err(ApiError::invalid(text));
    }
    if time.is_some_and(|time| time > now) {
        return Err(ApiError::invalid("Field 'spec.source_branch_time' is in the future"));
    }
    if time.is_some_and(|time| time < source.created) {
        let text = "Field 'spec.source_branch_time' is before the source branch was created";
        return Err(ApiError::invalid(text));
    }
    Ok(())
}

/// Turns a time to live into the time that it ends at.
pub(super) fn settle_expiry(
    spec: &mut Map<String, Value>,
    now: Timestamp,
    needed: bool,
) -> Result<(), ApiError> {
    if let Some(ttl) = fields::at(spec, "ttl").and_then(Value::as_str).and_then(duration) {
        spec.remove("ttl");
        spec.insert("expire_time".to_owned(), json!(now.plus(ttl)));
    }
    let expires =
        fields::at(spec, "expire_time").and_then(Value::as_str).and_then(Timestamp::parse);
    match expires {
        Some(at) if at <= now => Err(ApiError::invalid("Field 'spec.expire_time' is in the past")),
        Some(at) if at.since(now) > limits::LONGEST_TTL => {
            Err(ApiError::invalid("Field 'spec.expire_time' is more than 30 days from now"))
        }
        None if needed && fields::at(spec, "no_expiry").is_none() => Err(ApiError::invalid(
            "exactly one of 'spec.ttl', 'spec.expire_time' and 'spec.no_expiry' must be set",
        )),
        _ => Ok(()),
    }
}

/// Refuses one branch more, or one protected branch more, than a project may have.
pub(super) fn check_counts(tx: &Tx<'_>, branch: &Record, protects: bool) -> Result<(), ApiError> {
    let all: Vec<Record> = tx.list(&format!("{}/branches", branch.project()))?;
    let others: Vec<_> = all.iter().filter(|it| it.is_alive() && it.name != branch.name).collect();
    let count = |is: &dyn Fn(&Record) -> bool| others.iter().filter(|it| is(it)).count();
    let refuse = |most: usize, what: &str| {
        Err(ApiError::limit(format!("a project has at most {most} {what}")))
    };
    if others.len() >= limits::BRANCHES {
        return refuse(limits::BRANCHES, "branches");
    }
    if count(&|it| !is_archived(it)) >= limits::UNARCHIVED {
        return refuse(limits::UNARCHIVED, "branches that are not archived");
    }
    let is_root = |it: &Record| it.text("source_branch").is_none();
    if is_root(branch) && count(&is_root) >= limits::ROOTS {
        return refuse(limits::ROOTS, "branches without a parent");
    }
    if protects { check_protected(tx, branch) } else { Ok(()) }
}

/// Refuses one protected branch more than a project may have.
pub(super) fn check_protected(tx: &Tx<'_>, branch: &Record) -> Result<(), ApiError> {
    let all: Vec<Record> = tx.list(&format!("{}/branches", branch.project()))?;
    let others = all.iter().filter(|it| it.is_alive() && it.name != branch.name);
    if others.filter(|it| it.is("is_protected")).count() < limits::PROTECTED {
        return Ok(());
    }
    let text = format!("a project has at most {} protected branch", limits::PROTECTED);
    Err(ApiError::limit(text))
}

/// A protected branch does not expire, nor does a root, the default one, or one that has children.
pub(super) fn check_protection(branch: &Record, stays: bool) -> Result<(), ApiError> {
    let expires = branch.text("expire_time").is_some();
    if expires && branch.is("is_protected") {
        return Err(ApiError::forbidden_by_state("a protected branch cannot expire"));
    }
    if expires && stays {
        let text = "a default or root branch, or one with children, cannot expire";
        return Err(ApiError::forbidden_by_state(text));
    }
    Ok(())
}

/// Why a branch has to stay, beside protection.
pub(super) fn is_kept(
    tx: &Tx<'_>,
    project: &Record,
    branch: &Record,
) -> Result<Option<&'static str>, ApiError> {
    if project.text("default_branch") == Some(&*branch.name) {
        return Ok(Some("default branch"));
    }
    if branch.text("source_branch").is_none() && branch.text("source_snapshot").is_none() {
        return Ok(Some("root branch"));
    }
    let all: Vec<Record> = tx.list(&format!("{}/branches", project.name))?;
    let is_child = |it: &&Record| it.is_alive() && it.text("source_branch") == Some(&*branch.name);
    Ok(all.iter().find(is_child).map(|_| "branch with children"))
}

pub(super) fn refuse_kept(tx: &Tx<'_>, branch: &Record, verb: &str) -> Result<(), ApiError> {
    if branch.is("is_protected") {
        return Err(ApiError::forbidden_by_state(format!("cannot {verb} protected branch")));
    }
    let project = tx.need(branch.project())?;
    match is_kept(tx, &project, branch)? {
        Some("branch with children") => {
            Err(ApiError::forbidden_by_state(format!("cannot {verb} branch with children")))
        }
        Some(what) => Err(ApiError::managed_by_parent(format!(
            "cannot {verb} the {what}: it goes together with its project"
        ))),
        None => Ok(()),
    }
}

/// Where in the past of its source a branch or snapshot begins.
pub(super) fn point(record: &Record) -> BranchPoint {
    match (record.time("source_branch_time"), record.text("source_branch_lsn")) {
        (Some(time), _) => BranchPoint::Time(time),
        (None, Some(lsn)) => BranchPoint::Lsn(lsn.to_owned()),
        (None, None) => BranchPoint::Head,
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Store;
    use super::*;

    fn branch(id: &str, change: impl FnOnce(&mut Record)) -> Record {
        let name = format!("projects/p/branches/{id}");
        let mut record = Record::new(Kind::Branch, name, format!("br-{id}"), Timestamp::default());
        record.spec.insert("source_branch".to_owned(), json!("projects/p/branches/b0"));
        change(&mut record);
        record
    }

    /// Whether one more can be made beside these.
    fn fits(others: &[Record], more: &Record) -> Result<(), String> {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("catalogue.db")).unwrap();
        let counted = store.transact(|tx| {
            others.iter().try_for_each(|it| tx.keep(it))?;
            check_counts(tx, more, more.is("is_protected"))
        });
        counted.map_err(|error: ApiError| error.message)
    }

    #[test]
    fn archived_and_deleted_branches_leave_room() {
        let plain = |number: usize| branch(&format!("b{number}"), |_| ());
        let mut others: Vec<Record> = (0..10).map(plain).collect();
        let more = branch("more", |_| ());
        assert!(fits(&others, &more).unwrap_err().contains("at most 10"));
        fits(&others, &others[3]).unwrap();
        others[1].facts.insert("archived".to_owned(), json!(true));
        fits(&others, &more).unwrap();
        others[1].facts.clear();
        others[1].deleted = Some(Timestamp::from_millis(1));
        fits(&others, &more).unwrap();
        let archived = |number: usize| {
            branch(&format!("a{number}"), |it| {
                drop(it.facts.insert("archived".to_owned(), json!(true)));
            })
        };
        let all: Vec<Record> = (0..500).map(archived).collect();
        assert!(fits(&all, &more).unwrap_err().contains("at most 500"));
    }

    #[test]
    fn one_is_protected_and_three_are_roots() {
        let protected = |id: &str| {
            branch(id, |it| drop(it.spec.insert("is_protected".to_owned(), json!(true))))
        };
        assert!(fits(&[protected("a")], &protected("b")).unwrap_err().contains("protected"));
        fits(&[protected("a")], &branch("b", |_| ())).unwrap();
        let root = |id: &str| branch(id, |it| drop(it.spec.remove("source_branch")));
        assert!(fits(&[root("a"), root("b"), root("c")], &root("d")).is_err());
        fits(&[root("a"), root("b")], &root("d")).unwrap();
    }

    #[test]
    fn an_expiry_is_settled_when_it_is_asked_for() {
        let now = Timestamp::from_millis(1_000);
        let settle = |spec: Value| {
            let mut spec = spec.as_object().unwrap().clone();
            settle_expiry(&mut spec, now, true)
                .map(|()| Value::Object(spec))
                .map_err(|it| it.message)
        };
        let at = now.plus(std::time::Duration::from_mins(1));
        assert_eq!(settle(json!({"ttl": "60s"})).unwrap(), json!({ "expire_time": at }));
        assert_eq!(settle(json!({"no_expiry": true})).unwrap(), json!({"no_expiry": true}));
        assert!(settle(json!({})).unwrap_err().contains("exactly one"));
        assert!(settle(json!({"expire_time": now})).unwrap_err().contains("past"));
        let far = now.plus(limits::LONGEST_TTL).plus(std::time::Duration::from_secs(1));
        assert!(settle(json!({ "expire_time": far })).unwrap_err().contains("30 days"));
    }
}
