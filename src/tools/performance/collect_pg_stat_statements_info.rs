//! Records how many statements `pg_stat_statements` had to forget: whether its list can be trusted.
//!
//! Reads: `pg_stat_statements_info` and how full the list is.
//! Changes: nothing.
//! Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{Failure, Risk, Timestamp};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::context::ReadContext;
use crate::tools::statements_state::{EXTENSION, INFO, Info, Statements};
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CollectPgStatStatementsInfo));

struct CollectPgStatStatementsInfo;

/// Nothing to choose.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {}

/// What it says about itself.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
struct Output {
    /// When, by the server's clock; absent: it could not be asked.
    at: Option<Timestamp>,
    /// How often statements were forgotten, since the counters began.
    dealloc: Option<u64>,
    /// How often since the run before; absent across a reset.
    dealloc_delta: Option<u64>,
    /// When all counters were reset.
    stats_reset: Option<String>,
    /// When the server was started.
    postmaster_start: Option<String>,
    /// The epoch of the counters: two runs can be compared where it is the same.
    epoch: Option<String>,
    /// How many statements it knows.
    statements: Option<u64>,
    /// How many it may know: `pg_stat_statements.max`.
    max_statements: Option<u64>,
    /// What that means.
    note: String,
    /// What could not be measured.
    #[serde(skip_deserializing)]
    not_measured: Vec<NotMeasured>,
}

impl ReadTool for CollectPgStatStatementsInfo {
    const META: ToolMeta = ToolMeta {
        name: "collect_pg_stat_statements_info",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Records whether pg_stat_statements had to forget statements",
        sql: &[&EXTENSION, &INFO],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    const EARLIER: u32 = 1;

    async fn read(&self, cx: &ReadContext<'_>, _: Params) -> Result<Output, Failure> {
        let statements = match Statements::find(cx).await? {
            Ok(statements) => statements,
            Err(missing) => {
                let note = missing.why.clone();
                return Ok(Output { note, not_measured: vec![missing], ..Output::default() });
            }
        };
        let info = statements.info(cx).await?;
        let server = cx.pg.server().await?;
        Ok(judge(&info, server.place(), cx.earlier))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        if output.at.is_none() {
            return Vec::new();
        }
        let row = json!({
            "dealloc": output.dealloc,
            "dealloc_delta": output.dealloc_delta,
            "statements": output.statements,
            "max_statements": output.max_statements,
            "epoch_id": output.epoch,
            "stats_reset": output.stats_reset,
            "postmaster_start": output.postmaster_start,
            "snapshot_timestamp": output.at,
        });
        vec![HistoryRow { table: "pg_stat_statements_info".to_owned(), row }]
    }
}

fn judge(info: &Info, place: Option<&str>, earlier: &[Value]) -> Output {
    let epoch = info.epoch(place);
    let before =
        earlier.first().and_then(|output| serde_json::from_value::<Output>(output.clone()).ok());
    let before = before.filter(|before| before.epoch.as_ref() == Some(&epoch));
    let dealloc_delta =
        before.and_then(|before| info.dealloc.checked_sub(before.dealloc.unwrap_or(u64::MAX)));
    let note = match dealloc_delta {
        Some(0) => "no statement was forgotten since the run before".to_owned(),
        Some(times) => format!(
            "statements were forgotten {times} times since the run before: raise \
             pg_stat_statements.max above {}",
            info.max_statements
        ),
        None if info.dealloc > 0 => {
            format!("statements were forgotten {} times since the counters began", info.dealloc)
        }
        None => "no statement was forgotten since the counters began".to_owned(),
    };
    Output {
        at: Some(info.at),
        dealloc: Some(info.dealloc),
        dealloc_delta,
        stats_reset: info.stats_reset.clone(),
        postmaster_start: Some(info.postmaster_start.clone()),
        epoch: Some(epoch),
        statements: Some(info.statements),
        max_statements: Some(info.max_statements),
        note,
        not_measured: info.hidden().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(dealloc: u64, reset: &str) -> Info {
        let row = json!({
            "at": "2026-01-01T00:00:00Z", "dealloc": dealloc, "stats_reset": reset,
            "postmaster_start": "p", "statements": 90, "hidden": 0, "max_statements": 100,
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn forgetting_is_counted_within_an_epoch() {
        let first = judge(&info(3, "a"), Some("s"), &[]);
        assert_eq!((first.dealloc, first.dealloc_delta), (Some(3), None));
        let earlier = [serde_json::to_value(&first).unwrap()];
        let next = judge(&info(5, "a"), Some("s"), &earlier);
        assert_eq!(next.dealloc_delta, Some(2));
        assert!(next.note.contains("raise pg_stat_statements.max above 100"), "{}", next.note);
        assert_eq!(judge(&info(5, "b"), Some("s"), &earlier).dealloc_delta, None);
        assert_eq!(judge(&info(5, "a"), Some("t"), &earlier).dealloc_delta, None);
        let rows = CollectPgStatStatementsInfo.history(&next);
        assert_eq!(rows[0].row["dealloc_delta"], 2);
        assert!(CollectPgStatStatementsInfo.history(&Output::default()).is_empty());
    }
}
