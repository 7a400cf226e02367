//! Counts the sessions, and finds those that hold others up.
//!
//! Reads: `pg_stat_activity`, `pg_locks`, `pg_prepared_xacts`, the connection limits.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::kernel::{Failure, Risk, Span};
use crate::tools::connection_state::{Connected, LIMITS, Long, PREPARED, SESSIONS, look};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(MonitorConnections));

struct MonitorConnections;

/// What counts as long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Sessions that are idle for longer are listed in `long_idle`.
    #[serde(default = "half_an_hour")]
    long_idle: Span,
    /// Waits for a lock that are shorter are not reported.
    #[serde(default)]
    min_wait: Span,
}

const fn half_an_hour() -> Span {
    Span::from_secs(1800)
}

impl ReadTool for MonitorConnections {
    const META: ToolMeta = ToolMeta {
        name: "monitor_connections",
        family: Family::Health,
        risk: Risk::Low,
        revision: 2,
        summary: "Counts sessions and finds those that hold others up",
        sql: &[&SESSIONS, &LIMITS, &PREPARED],
        secrets: &[],
    };
    type Params = Params;
    type Output = Connected;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Connected, Failure> {
        look(cx, Long { idle: params.long_idle, min_wait: params.min_wait }).await
    }
}
