//! The rules of an SOP that held in a run, with what they saw. PURE.

use serde_json::Value;

use crate::kernel::Seen;
use crate::report::view::StepView;

/// How a script's step keeps its rules among what it saw.
const PREFIX: &str = "rule ";

/// A rule that held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Its name.
    pub name: String,
    /// Its name, and what the script says about it.
    pub text: String,
    /// The plain values that it saw.
    pub values: String,
}

/// The rules of a step that held, in the order in which they were asked.
pub(super) fn held(step: &StepView) -> Vec<Held> {
    step.grounds.seen.iter().filter_map(rule).collect()
}

fn rule(seen: &Seen) -> Option<Held> {
    let name = seen.name.strip_prefix(PREFIX)?;
    if seen.value["verdict"] != true {
        return None;
    }
    let why = seen.value["why"].as_str().unwrap_or_default();
    let values = seen.value["seen"].as_array().map_or(&[][..], Vec::as_slice);
    let is_plain = |one: &&Value| !one["value"].is_object() && !one["value"].is_array();
    let values = values.iter().filter(is_plain);
    let values: Vec<String> = values
        .map(|one| format!("{} = {}", one["name"].as_str().unwrap_or("?"), one["value"]))
        .collect();
    let text = format!("\"{name}\": {why}");
    Some(Held { name: name.to_owned(), text, values: values.join(", ") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_is_shown_when_it_held() {
        let seen = |verdict: bool| Seen {
            name: "rule idle".to_owned(),
            value: json!({"rule": "idle", "verdict": verdict, "why": "4 wait",
                          "seen": [{"name": "b.blocked", "value": 4}, {"name": "b", "value": {}}]}),
        };
        let held = rule(&seen(true)).unwrap();
        assert_eq!(
            (held.text.as_str(), held.values.as_str()),
            ("\"idle\": 4 wait", "b.blocked = 4")
        );
        assert_eq!(rule(&seen(false)), None);
        assert_eq!(rule(&Seen { name: "x".to_owned(), value: json!(1) }), None);
    }
}
