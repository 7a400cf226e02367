//! Publishes an event that triggers and waits can see.
//!
//! Reads: nothing.
//! Changes: writes one event to the journal, together with the step's own settlement: exactly once.
//! Undo: what was seen cannot be unseen.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::{Change, ChangeSet, Failure, Inverse, Operation, Risk};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(PublishEvent));

struct PublishEvent;

/// The event.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Its name in snake case, such as `self_heal_executed`.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_]*$"))]
    event: String,
    /// What it carries: an object.
    #[serde(default)]
    payload: Map<String, Value>,
}

/// What became of the event.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether it was published.
    published: bool,
}

impl WriteTool for PublishEvent {
    const META: ToolMeta = ToolMeta {
        name: "publish_event",
        family: Family::Core,
        risk: Risk::Low,
        revision: 1,
        summary: "Publishes an event for triggers and waits",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, _: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        judge(params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        Output { published: settled.iter().any(|settled| settled.receipt().is_some()) }
    }
}

fn judge(params: Params) -> Result<ChangeSet, Failure> {
    let Params { event, payload } = params;
    if !is_snake_case(&event) {
        let message = format!("`{event}` is not the name of an event");
        return Err(Failure::permanent("publish_event::bad_name", message)
            .with_help("write it in snake case, such as `self_heal_executed`"));
    }
    let object = format!("event {event}");
    let operation = Operation::Event { name: event, payload: Value::Object(payload) };
    let mut change = Change::new(object, "the workflow says so", operation);
    change.inverse = Inverse::Impossible { why: "what was seen cannot be unseen".to_owned() };
    Ok(ChangeSet::new(vec![change]))
}

fn is_snake_case(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_payload_travels_along() {
        let params = json!({"event": "self_heal_executed", "payload": {"ended": 3}});
        let set = judge(serde_json::from_value(params).unwrap()).unwrap();
        let payload = json!({"ended": 3});
        let expected = Operation::Event { name: "self_heal_executed".into(), payload };
        assert_eq!(set.changes[0].operation, expected);
    }

    #[test]
    fn names_are_snake_case() {
        for name in ["", "Self", "a-b", "1a", "ä"] {
            let params = Params { event: name.to_owned(), payload: Map::new() };
            assert!(judge(params).is_err(), "{name} was accepted");
        }
    }
}
