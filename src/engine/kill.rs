//! Killing this process at a named boundary: how durability is proven.
//!
//! Armed only in a child process of `lakeops test crash` or of a test, through [`ArmedKill`].

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kernel::KillPoints;

/// Where to die, and where to write down which boundaries were reached.
pub struct ArmedKill {
    /// `Some(n)`: at the nth boundary, from 1.
    at: Option<u64>,
    /// Only boundaries with this in their names are counted.
    among: String,
    state: Mutex<Reached>,
}

struct Reached {
    count: u64,
    trace: Option<File>,
}

impl ArmedKill {
    /// Dies at the `at`th boundary (never when `None`). Each boundary that is reached becomes a line of
    /// `trace`, written before the process dies.
    pub fn new(at: Option<u64>, trace: Option<&Path>) -> std::io::Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let trace = trace.map(open).transpose()?;
        Ok(Self { at, among: String::new(), state: Mutex::new(Reached { count: 0, trace }) })
    }

    /// Counts only boundaries whose name contains `text`, such as `/after effect`: with parallel steps
    /// the place of a boundary among all others is a matter of chance.
    #[must_use]
    pub fn among(self, text: impl Into<String>) -> Self {
        Self { among: text.into(), ..self }
    }
}

impl KillPoints for ArmedKill {
    fn reach(&self, boundary: &str) {
        if !boundary.contains(&self.among) {
            return;
        }
        let mut reached = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reached.count += 1;
        let count = reached.count;
        if let Some(trace) = reached.trace.as_mut() {
            // Not being able to trace must not change what the process does.
            drop(writeln!(trace, "{count} {boundary}"));
        }
        if self.at == Some(count) {
            // SIGKILL cannot be caught: nothing of this process runs any further.
            let _sent = kill(Pid::this(), Signal::SIGKILL);
            loop {
                std::thread::park();
            }
        }
    }
}
