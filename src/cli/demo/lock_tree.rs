//! Who waits for whom, drawn as a tree from what `monitor_connections` measured. PURE.

use std::fmt::Write as _;

use serde_json::Value;

/// The lock trees of an output of `monitor_connections`, one line for each session.
pub(super) fn draw(connections: &Value) -> String {
    let mut text = String::new();
    let empty = Vec::new();
    let list = |key: &str| connections[key].as_array().unwrap_or(&empty);
    for root in list("blockers") {
        let _ = writeln!(
            text,
            "{}  {}  {} for {}  {}",
            root["pid"],
            name(root),
            root["state"].as_str().unwrap_or("at work"),
            seconds(&root["idle_seconds"]),
            statement(root),
        );
        branches(&mut text, list("waiting"), &root["pid"], 1, "");
    }
    text
}

fn branches(text: &mut String, waiting: &[Value], above: &Value, level: u64, indent: &str) {
    let here: Vec<&Value> = waiting
        .iter()
        .filter(|one| one["level"] == level && parent(one, waiting) == above)
        .collect();
    for (place, one) in here.iter().enumerate() {
        let is_last = place + 1 == here.len();
        let (joint, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let _ = writeln!(
            text,
            "{indent}{joint}{}  {}  waits {} for {}",
            one["pid"],
            name(one),
            seconds(&one["wait_seconds"]),
            one["waiting_for"].as_str().unwrap_or("a lock"),
        );
        branches(text, waiting, &one["pid"], level + 1, &format!("{indent}{below}"));
    }
}

/// Of those that a session waits for, the one that is nearest to it in the tree.
fn parent<'a>(one: &'a Value, waiting: &'a [Value]) -> &'a Value {
    let level = one["level"].as_u64().unwrap_or(0);
    let level_of = |pid: &Value| {
        let known = waiting.iter().find(|other| other["pid"] == *pid);
        known.and_then(|other| other["level"].as_u64()).unwrap_or(0)
    };
    let blockers = one["blocked_by"].as_array().map_or(&[][..], Vec::as_slice);
    let nearest = blockers.iter().find(|pid| level_of(pid) + 1 == level);
    nearest.or_else(|| blockers.first()).unwrap_or(&Value::Null)
}

fn name(session: &Value) -> &str {
    session["application"].as_str().filter(|name| !name.is_empty()).unwrap_or("unnamed")
}

fn seconds(value: &Value) -> String {
    value.as_f64().map_or_else(|| "an unknown time".to_owned(), |number| format!("{number:.1}s"))
}

fn statement(session: &Value) -> String {
    let text = session["query"].as_str().unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tree_is_drawn_from_its_root() {
        let waiter = |pid: i32, level: u32, blocked_by: Vec<i32>| {
            json!({"pid": pid, "level": level, "blocked_by": blocked_by, "application": format!("a{pid}"),
                   "wait_seconds": 1.25, "waiting_for": "tuple"})
        };
        let connections = json!({
            "blockers": [{"pid": 7, "application": "report", "state": "idle in transaction",
                          "idle_seconds": 5.0, "query": "update t\n set a = 1"}],
            "waiting": [waiter(8, 1, vec![7]), waiter(9, 2, vec![8]), waiter(10, 2, vec![8]),
                        waiter(11, 3, vec![8, 9])],
        });
        let expected = "\
            7  report  idle in transaction for 5.0s  update t set a = 1\n\
            └─ 8  a8  waits 1.2s for tuple\n   \
               ├─ 9  a9  waits 1.2s for tuple\n   \
               │  └─ 11  a11  waits 1.2s for tuple\n   \
               └─ 10  a10  waits 1.2s for tuple\n";
        assert_eq!(draw(&connections), expected);
        assert_eq!(draw(&json!({})), "");
    }
}
