//! Programs on this machine, started without a shell.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Failure, Operation, Receipt, Recovery, RetryClass};

/// How much of each output is kept; the rest is read and dropped, so that the program does not block.
const MOST_OUTPUT: usize = 64 * 1024;

/// How long a program may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// How often it is looked whether a program that an earlier process left is still at work.
const EVERY: Duration = Duration::from_millis(500);

/// Carries the change's key to the program, which can use it to tell repetitions apart; it also finds
/// the program again after a crash.
const KEY_VARIABLE: &str = "LAKEOPS_CHANGE";

/// Runs programs, where the settings allow it.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandApplier;

struct Parts<'a> {
    program: &'a str,
    args: &'a [String],
    probe: Option<&'a [String]>,
}

struct Ended {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// A program that did not run to its end.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("failed to start `{program}`")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to wait for `{program}`")]
    Wait {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("`{program}` did not end within {} and was killed", humantime::format_duration(*.limit))]
    Timeout { program: String, limit: Duration },
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let message = format!("{error}{}", cause.unwrap_or_default());
        match error {
            CommandError::Start { .. } => Self::permanent("command::not_started", message)
                .with_help("check the program's path and that it may be executed"),
            CommandError::Wait { .. } => {
                Self::permanent("command::lost", message).with_class(RetryClass::InDoubt)
            }
            CommandError::Timeout { .. } => {
                Self::permanent("command::timeout", message).with_class(RetryClass::InDoubt)
            }
        }
    }
}

impl CommandApplier {
    async fn carry_out(self, cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
        let Parts { program, args, .. } = parts(cx)?;
        cx.reach("before effect");
        let ended = run(cx, program, args, cx.time_limit()).await?;
        if !ended.status.success() {
            return Err(failed(program, &ended));
        }
        cx.reach("after effect");
        let result = json!({ "exit": 0, "stdout": ended.stdout, "stderr": ended.stderr });
        Ok(Receipt { result, ..Receipt::default() })
    }

    async fn find(self, cx: &ApplyContext<'_>) -> Result<Recovered, Failure> {
        let Parts { program, probe, .. } = parts(cx)?;
        if let Some(why) = wait_for_process(cx).await {
            return Ok(Recovered::Unknown(why));
        }
        if let (Recovery::Probe, Some([program, args @ ..])) = (cx.recovery, probe) {
            let ended = run(cx, program, args, cx.time_limit()).await?;
            return Ok(match ended.status.code() {
                Some(0) => Recovered::Applied(Receipt { recovered: true, ..Receipt::default() }),
                Some(1) => Recovered::NotApplied,
                _ => Recovered::Unknown(failed(program, &ended).message),
            });
        }
        Ok(match cx.recovery {
            Recovery::Repeatable => Recovered::NotApplied,
            Recovery::Transactional | Recovery::Probe | Recovery::Ask => {
                Recovered::Unknown(format!("nobody saw `{program}` end"))
            }
        })
    }
}

fn parts<'a>(cx: &ApplyContext<'a>) -> Result<Parts<'a>, Failure> {
    if !cx.settings.allow_commands {
        return Err(Failure::permanent("command::not_allowed", "programs may not be run here")
            .with_help("set `allow_commands = true` in the configuration to allow them"));
    }
    match cx.operation {
        Operation::Command { program, args, probe } => {
            Ok(Parts { program, args, probe: probe.as_deref() })
        }
        other => Err(wrong_kind(other)),
    }
}

fn failed(program: &str, ended: &Ended) -> Failure {
    let said = ended.stderr.trim();
    let tail: String = said.chars().skip(said.chars().count().saturating_sub(500)).collect();
    match ended.status.code() {
        Some(code) => Failure::permanent(
            "command::failed",
            format!("`{program}` ended with exit code {code}: {tail}"),
        ),
        // Something ended it from outside, nobody knows how far it was.
        None => Failure::permanent("command::killed", format!("`{program}` was killed: {tail}"))
            .with_class(RetryClass::InDoubt),
    }
}

async fn run(
    cx: &ApplyContext<'_>,
    program: &str,
    args: &[String],
    limit: Duration,
) -> Result<Ended, CommandError> {
    let mut child = Command::new(program)
        .args(args)
        .env(KEY_VARIABLE, cx.key.digest().as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| CommandError::Start { program: program.to_owned(), source })?;
    let outputs = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let reading = async { tokio::join!(capped(outputs.0), capped(outputs.1)) };
        let (status, (stdout, stderr)) = tokio::join!(child.wait(), reading);
        status.map(|status| Ended { status, stdout, stderr })
    };
    if let Ok(ended) = tokio::time::timeout(limit, ended).await {
        return ended.map_err(|source| CommandError::Wait { program: program.to_owned(), source });
    }
    end_group(&mut child).await;
    Err(CommandError::Timeout { program: program.to_owned(), limit })
}

/// Ends the program and all that it started: politely, then not.
async fn end_group(child: &mut Child) {
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else {
        return;
    };
    // A group that is gone already is what we want.
    let _ = killpg(group, Signal::SIGTERM);
    drop(tokio::time::timeout(GRACE, child.wait()).await);
    let _ = killpg(group, Signal::SIGKILL);
    drop(child.wait().await);
}

async fn capped(output: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut output) = output else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = vec![0; 8192];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let room = MOST_OUTPUT.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Waits for a program that an earlier process started for this change.
async fn wait_for_process(cx: &ApplyContext<'_>) -> Option<String> {
    let mark = format!("{KEY_VARIABLE}={}", cx.key.digest());
    let patience = cx.settings.limits.orphan_wait;
    let deadline = cx.clock.now().plus(patience.0);
    loop {
        let pid = process_with(&mark).await?;
        if cx.clock.now() >= deadline {
            return Some(format!(
                "process {pid}, left by an earlier process, runs after {patience}"
            ));
        }
        cx.clock.sleep_until(cx.clock.now().plus(EVERY)).await;
    }
}

/// Where the system shows no environments (`/proc`), nothing is found.
async fn process_with(mark: &str) -> Option<String> {
    let mut processes = tokio::fs::read_dir("/proc").await.ok()?;
    while let Ok(Some(entry)) = processes.next_entry().await {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let environment = tokio::fs::read(entry.path().join("environ")).await.unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
            return Some(name);
        }
    }
    None
}

impl Applier for CommandApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, self.carry_out(cx)))
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(self.find(cx))
    }
}
