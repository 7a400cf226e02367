//! Tools that have the shapes of real ones and never run.

use lakeops::kernel::{Change, ChangeSet, Failure, Operation, Risk, Severity, Span};
use lakeops::tools::tool::{Family, Read, Settled, Write};
use lakeops::tools::{AnyTool, Catalog, ReadContext, ReadTool, ToolMeta, WriteTool};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The catalogue of these tools.
pub(crate) fn catalog() -> Catalog {
    Catalog::of(&[
        AnyTool::Read(&Read(MonitorConnections)),
        AnyTool::Write(&Write(Stub::<TerminateParams, 1>(std::marker::PhantomData))),
        AnyTool::Write(&Write(Stub::<AlertParams, 2>(std::marker::PhantomData))),
        AnyTool::Write(&Write(Stub::<EventParams, 3>(std::marker::PhantomData))),
        AnyTool::Write(&Write(Stub::<RequestParams, 4>(std::marker::PhantomData))),
        AnyTool::Write(&Write(Stub::<Nothing, 5>(std::marker::PhantomData))),
    ])
}

const fn meta(name: &'static str, risk: Risk, secrets: &'static [&'static str]) -> ToolMeta {
    ToolMeta { name, family: Family::Core, risk, revision: 3, summary: "stub", sql: &[], secrets }
}

struct MonitorConnections;

/// No arguments.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Serialize, JsonSchema)]
struct Connections {
    total: u64,
    blockers: Vec<Blocker>,
    oldest: Option<Blocker>,
}

#[derive(Serialize, JsonSchema)]
struct Blocker {
    pid: i32,
    age: Span,
}

impl ReadTool for MonitorConnections {
    const META: ToolMeta = meta("monitor_connections", Risk::Low, &[]);
    type Params = Nothing;
    type Output = Connections;

    async fn read(&self, _: &ReadContext<'_>, _: Nothing) -> Result<Connections, Failure> {
        Ok(Connections { total: 0, blockers: Vec::new(), oldest: None })
    }
}

/// A write tool of some arguments.
struct Stub<P, const WHICH: usize>(std::marker::PhantomData<fn(P)>);

#[derive(Serialize, JsonSchema)]
struct Done {
    ended: u64,
}

/// Whom to end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct TerminateParams {
    /// How long a session may be idle.
    #[serde(default)]
    max_idle: Option<Span>,
    /// Whose sessions.
    #[serde(default)]
    users: Vec<String>,
    /// Whether to only say what would be done.
    #[serde(default)]
    dry: bool,
}

/// What to tell.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct AlertParams {
    /// How bad it is.
    severity: Severity,
    /// One line for people.
    title: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventParams {
    event: EventName,
    #[serde(default)]
    payload: Map<String, Value>,
}

/// A name whose rule the schema does not tell.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventName(String);

impl<'de> Deserialize<'de> for EventName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains(' ') {
            return Err(serde::de::Error::custom("an event's name has no blanks"));
        }
        Ok(Self(text))
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct RequestParams {
    url: String,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    body: Option<Value>,
}

impl<P, const WHICH: usize> WriteTool for Stub<P, WHICH>
where
    P: serde::de::DeserializeOwned + JsonSchema + Send + 'static,
{
    const META: ToolMeta = match WHICH {
        1 => meta("terminate_idle_connections", Risk::Medium, &[]),
        2 => meta("send_alert", Risk::Low, &[]),
        3 => meta("publish_event", Risk::Low, &[]),
        4 => meta("http_request", Risk::Medium, &["headers"]),
        _ => meta("rebuild_everything", Risk::High, &[]),
    };
    type Params = P;
    type Output = Done;

    async fn propose(&self, _: &ReadContext<'_>, _: P) -> Result<ChangeSet, Failure> {
        Ok(ChangeSet::new(vec![Change::new("x", "y", Operation::sql("select 1", Vec::new()))]))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Done {
        Done { ended: settled.len() as u64 }
    }
}
