//! What fits into a project: the platform's limits, looked at before anything is proposed. PURE.

use super::survey::Survey;
use crate::kernel::{Failure, Span};

/// Branches of a project, the archived ones not counted.
pub(in crate::tools) const MOST_UNARCHIVED: usize = 10;
/// Branches of a project, all of them.
pub(in crate::tools) const MOST_BRANCHES: usize = 500;
/// Branches of a project that have no parent.
pub(in crate::tools) const MOST_ROOTS: usize = 3;
/// Branches of a project that the platform protects.
pub(in crate::tools) const MOST_PROTECTED: usize = 1;
/// Computes of a project that are active at one time.
pub(in crate::tools) const MOST_ACTIVE_COMPUTES: usize = 20;
/// Snapshots of a project.
pub(in crate::tools) const MOST_SNAPSHOTS: usize = 10;
/// The longest that a branch can be made to live.
pub(in crate::tools) const LONGEST_TTL: Span = Span::from_secs(30 * 24 * 3600);

/// How long a branch can be made to live of what is asked for, and whether that is less.
pub(in crate::tools) fn within_cap(ttl: Span) -> (Span, bool) {
    if ttl > LONGEST_TTL { (LONGEST_TTL, true) } else { (ttl, false) }
}

/// Refuses when so many more branches, each with a compute, do not fit.
pub(in crate::tools) fn room_for(survey: &Survey, more: usize) -> Result<(), Failure> {
    if more == 0 {
        return Ok(());
    }
    let unarchived = survey.unarchived().count();
    let full = |taken: usize, most: usize, what: &str| {
        let text = format!(
            "project `{}` has {taken} of {most} {what}, and {more} more are wanted",
            survey.project
        );
        Failure::permanent("branching::full", text)
    };
    if unarchived + more > MOST_UNARCHIVED {
        let mut oldest: Vec<_> = survey.unarchived().filter(|one| !one.is_held()).collect();
        oldest.sort_by_key(|one| one.branch.create_time);
        let oldest: Vec<&str> = oldest.iter().take(3).map(|one| one.branch.id()).collect();
        return Err(full(unarchived, MOST_UNARCHIVED, "unarchived branches").with_help(format!(
            "`enforce_ttl_policies` deletes what has expired; the oldest that could go: {}",
            if oldest.is_empty() { "none".to_owned() } else { oldest.join(", ") }
        )));
    }
    if survey.branches.len() + more > MOST_BRANCHES {
        return Err(full(survey.branches.len(), MOST_BRANCHES, "branches")
            .with_help("delete archived branches that nobody needs"));
    }
    let active = survey.active_computes;
    if let Some(active) = active.filter(|active| active + more > MOST_ACTIVE_COMPUTES) {
        return Err(full(active, MOST_ACTIVE_COMPUTES, "active computes")
            .with_help("wait until computes suspend, or shorten `suspend_timeout_duration`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::survey::tests::survey;
    use super::*;
    use serde_json::{Value, json};

    fn branches(states: &[(&str, &str)]) -> Vec<Value> {
        let one = |(id, state): &(&str, &str)| {
            json!({
                "name": format!("projects/shop/branches/{id}"),
                "create_time": "2026-11-01T00:00:00Z",
                "status": {"current_state": state, "source_branch": "projects/shop/branches/r"},
            })
        };
        states.iter().map(one).collect()
    }

    #[test]
    fn archived_branches_take_no_place() {
        let ready: Vec<String> = (0..9).map(|number| format!("b{number}")).collect();
        let mut states: Vec<_> = ready.iter().map(|id| (id.as_str(), "READY")).collect();
        states.push(("old", "ARCHIVED"));
        let survey = survey(branches(&states));
        room_for(&survey, 1).unwrap();
        let failure = room_for(&survey, 2).unwrap_err();
        assert_eq!(failure.code, "branching::full");
        assert!(failure.message.contains("9 of 10 unarchived"), "{}", failure.message);
        assert!(failure.help.unwrap().contains("b0, b1, b2"));
        room_for(&survey, 0).unwrap();
    }

    #[test]
    fn computes_are_counted_where_they_were_looked_at() {
        let mut survey = survey(branches(&[("a", "READY")]));
        survey.active_computes = Some(20);
        assert!(room_for(&survey, 1).unwrap_err().message.contains("active computes"));
        survey.active_computes = None;
        room_for(&survey, 1).unwrap();
    }

    #[test]
    fn a_life_is_cut_to_what_the_platform_gives() {
        assert_eq!(within_cap(Span::from_secs(60)), (Span::from_secs(60), false));
        assert_eq!(within_cap(Span::from_secs(45 * 86_400)), (LONGEST_TTL, true));
    }
}
