//! Runs a program on this machine, where the configuration allows it.
//!
//! Reads: nothing.
//! Changes: whatever the program changes; it is started without a shell.
//! Undo: unknown; give the step a `compensate`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Change, ChangeSet, Failure, Inverse, Operation, Recovery, Risk};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(RunCommand));

struct RunCommand;

/// The program.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The program: a path, or a name that is looked up on the `PATH`.
    #[schemars(length(min = 1))]
    program: String,
    /// Its arguments. No shell expands them.
    #[serde(default)]
    args: Vec<String>,
    /// A program with arguments that exits 0 when the effect is there and 1 when it is not: resume
    /// asks it after a crash.
    #[serde(default)]
    probe: Option<Vec<String>>,
    /// Whether running it twice does no harm. Without this and without `probe` a person settles what a
    /// crash left in doubt.
    #[serde(default)]
    repeatable: bool,
}

/// What became of the program.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How it ended; absent when nothing was proposed.
    ended: Option<Ending>,
    /// What was seen of it: its exit code and what it printed.
    result: Value,
    /// How long it took.
    duration_ms: Option<u64>,
}

impl WriteTool for RunCommand {
    const META: ToolMeta = ToolMeta {
        name: "run_command",
        family: Family::Core,
        risk: Risk::Medium,
        revision: 1,
        summary: "Runs a program on this machine, where the configuration allows it",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        judge(params, cx.settings.allow_commands)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let first = settled.first();
        let receipt = first.and_then(Settled::receipt);
        Output {
            ended: first.map(Settled::ending),
            result: receipt.map(|receipt| receipt.result.clone()).unwrap_or_default(),
            duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
        }
    }
}

fn judge(params: Params, allowed: bool) -> Result<ChangeSet, Failure> {
    let Params { program, args, probe, repeatable } = params;
    if !allowed {
        let message = format!("`{program}` was not started: commands are not allowed here");
        return Err(Failure::permanent("run_command::not_allowed", message)
            .with_help("set `allow_commands = true` in .config/lakeops.toml"));
    }
    let empty_probe =
        probe.as_ref().is_some_and(|words| words.first().is_none_or(String::is_empty));
    if program.is_empty() || empty_probe {
        let message = "`program` and the first word of `probe` must name a program";
        return Err(Failure::permanent("run_command::no_program", message));
    }
    let recovery = match (&probe, repeatable) {
        (Some(_), _) => Recovery::Probe,
        (None, true) => Recovery::Repeatable,
        (None, false) => Recovery::Ask,
    };
    let object = format!("command {program}");
    let operation = Operation::Command { program, args, probe };
    let mut change = Change::new(object, "the workflow says so", operation);
    change.risk = Risk::Medium;
    change.recovery = recovery;
    change.inverse = Inverse::Impossible { why: "nobody knows what a program did".to_owned() };
    Ok(ChangeSet::new(vec![change]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn propose(params: Value, allowed: bool) -> Result<ChangeSet, Failure> {
        judge(serde_json::from_value(params).unwrap(), allowed)
    }

    #[test]
    fn refused_unless_allowed() {
        let error = propose(json!({"program": "true"}), false).unwrap_err();
        assert_eq!(error.code, "run_command::not_allowed");
        assert!(error.help.unwrap().contains("allow_commands"));
    }

    #[test]
    fn recovery_follows_what_the_author_promises() {
        let recovery = |params| propose(params, true).unwrap().changes[0].recovery;
        assert_eq!(recovery(json!({"program": "p"})), Recovery::Ask);
        assert_eq!(recovery(json!({"program": "p", "repeatable": true})), Recovery::Repeatable);
        assert_eq!(recovery(json!({"program": "p", "probe": ["q"]})), Recovery::Probe);
    }

    #[test]
    fn a_program_has_a_name() {
        assert!(propose(json!({"program": ""}), true).is_err());
        assert!(propose(json!({"program": "p", "probe": []}), true).is_err());
    }
}
