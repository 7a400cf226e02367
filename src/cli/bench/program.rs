//! The program itself: how long it takes to start, and the memory that it needs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::planning::{MOST_OF_A_FILE, SCRIPT, workflow};
use super::{Bench, BenchError, Figure, make_folder, peak_memory};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(2);

impl Bench {
    /// A start that does nothing, a run of scripts, and a server that has nothing to do: each a process
    /// of its own in `dir`.
    pub(super) async fn program(
        &self,
        program: &Path,
        dir: &Path,
        starts: u32,
    ) -> Result<[Figure; 3], BenchError> {
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            let failed = |source| BenchError::Disk { place: path.display().to_string(), source };
            std::fs::write(&path, text).map_err(failed)
        };
        for folder in [".config", "workflows", "sops"] {
            make_folder(&dir.join(folder))?;
        }
        // So that no configuration further up is found.
        write(".config/lakeops.toml", "")?;
        write("sops/add.rhai", SCRIPT)?;
        let text = workflow("program", MOST_OF_A_FILE)
            .replace("script: add.rhai", "script: sops/add.rhai");
        write("workflows/program.yaml", &text)?;
        let command = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).current_dir(dir).kill_on_drop(true);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        };
        Ok([
            self.starts(starts, || command(&["--version"])).await?,
            self.one_run(command(&["run", "program", "--state", "ran", "--output", "json"]))
                .await?,
            self.idle_server(command(&[
                "serve",
                "--state",
                "served",
                "--listen",
                "127.0.0.1:0",
                "--output",
                "json",
            ]))
            .await?,
        ])
    }

    async fn starts(
        &self,
        starts: u32,
        command: impl Fn() -> Command,
    ) -> Result<Figure, BenchError> {
        let began = self.clock.now();
        for _ in 0..starts {
            done(command().spawn().map_err(BenchError::Process)?).await?;
        }
        let mut figure = self.figure("a start of the program".to_owned(), starts.into(), began);
        figure.elapsed_ms /= f64::from(starts);
        figure.note = format!("the mean of {starts}");
        Ok(figure)
    }

    async fn one_run(&self, mut command: Command) -> Result<Figure, BenchError> {
        let began = self.clock.now();
        let child = command.spawn().map_err(BenchError::Process)?;
        let pid = child.id();
        let mut ended = std::pin::pin!(done(child));
        let mut peak = None;
        loop {
            tokio::select! {
                ended = &mut ended => { ended?; break }
                () = self.clock.sleep_until(self.clock.now().plus(LOOK)) => {
                    peak = peak.max(pid.and_then(|pid| peak_memory(&pid.to_string())));
                }
            }
        }
        let what = format!("a process that runs {MOST_OF_A_FILE} script steps");
        let mut figure = self.figure(what, u64::from(MOST_OF_A_FILE), began);
        figure.peak_memory_bytes = peak;
        Ok(figure)
    }

    async fn idle_server(&self, mut command: Command) -> Result<Figure, BenchError> {
        let began = self.clock.now();
        let mut child = command.spawn().map_err(BenchError::Process)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.as_mut() {
            BufReader::new(out).read_line(&mut line).await.map_err(BenchError::Process)?;
        }
        let mut figure =
            self.figure("a server without work, until it answers".to_owned(), 1, began);
        if let Some(pid) = child.id() {
            figure.peak_memory_bytes = peak_memory(&pid.to_string());
            // One that has ended says so below.
            let _told = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM));
        }
        done(child).await?;
        Ok(figure)
    }
}

async fn done(child: Child) -> Result<(), BenchError> {
    let output = child.wait_with_output().await.map_err(BenchError::Process)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let what = format!("it ended with {}: {said}", output.status);
    Err(BenchError::Process(std::io::Error::other(what)))
}
