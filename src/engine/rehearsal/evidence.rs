//! What an approval that demands a rehearsal looks for.

use std::collections::BTreeMap;

use crate::engine::state::Approval;
use crate::journal::rehearsal::{Evidence, own_digest};
use crate::kernel::{Digest, Timestamp};

/// Why an approval lacks the rehearsal that it demands; `None` when it lacks nothing.
pub(in crate::engine) fn missing(
    approval: &Approval,
    evidence: &BTreeMap<Digest, Evidence>,
    now: Timestamp,
) -> Option<String> {
    let within = approval.request.rehearsed_within?;
    approval.sets.iter().filter(|(_, set)| !set.is_empty()).find_map(|(step, set)| {
        let Some(found) = evidence.get(&own_digest(set)) else {
            return Some(format!("these changes of `{step}` were never rehearsed"));
        };
        let age = now.since(found.at);
        if age > within.0 {
            let age = humantime::format_duration(std::time::Duration::from_secs(age.as_secs()));
            return Some(format!(
                "the changes of `{step}` were rehearsed {age} ago, longer than {within}"
            ));
        }
        if found.rehearsed.passed() {
            return None;
        }
        let why = found.rehearsed.failure.as_ref().map(|failure| format!(": {}", failure.message));
        let why = why.unwrap_or_default();
        Some(format!("the rehearsal of `{step}` in run {} failed{why}", found.run))
    })
}
