//! Killing this process at a named boundary: how durability is proven.
//!
//! Armed only in a child process of `lakeops test crash` or of a test, through [`ArmedKill`].

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::sync::Mutex;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kernel::KillPoints;

/// Where to die, and where to write down which boundaries were reached.
pub struct ArmedKill {
    /// `Some(n)`: at the nth boundary, from 1.
    at: Option<u64>,
    among: Among,
    /// Boundaries at which a process died before; every other one kills.
    spared: Option<Spared>,
    state: Mutex<Reached>,
}

struct Spared {
    names: BTreeSet<String>,
    file: File,
}

/// Which boundaries are counted.
enum Among {
    /// Those with one of these in their names; no others are traced.
    Containing(Vec<String>),
    /// Those of this name; all are traced.
    Named(String),
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
        let state = Mutex::new(Reached { count: 0, trace });
        let among = Among::Containing(vec![String::new()]);
        Ok(Self { at, among, spared: None, state })
    }

    /// Dies at each boundary whose name is not in `file`, and writes it there. So a run that is resumed
    /// until it ends has died once at every boundary that it passes, whatever chance does to their order.
    pub fn each(self, file: &Path) -> std::io::Result<Self> {
        let names = match std::fs::read_to_string(file) {
            Ok(text) => text.lines().map(str::to_owned).collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        let file = OpenOptions::new().create(true).append(true).open(file)?;
        Ok(Self { spared: Some(Spared { names, file }), ..self })
    }

    /// Counts only boundaries whose name contains `text`, such as `/after effect`: with parallel steps
    /// the place of a boundary among all others is a matter of chance. Several texts are parted by `|`.
    #[must_use]
    pub fn among(self, text: impl AsRef<str>) -> Self {
        let texts = text.as_ref().split('|').map(str::to_owned).collect();
        Self { among: Among::Containing(texts), ..self }
    }

    /// Counts only boundaries of exactly this name, and traces all.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { among: Among::Named(name.into()), ..self }
    }
}

impl KillPoints for ArmedKill {
    fn reach(&self, boundary: &str) {
        let is_counted = match &self.among {
            Among::Containing(texts) if !texts.iter().any(|text| boundary.contains(text)) => return,
            Among::Containing(_) => true,
            Among::Named(name) => boundary == name,
        };
        let mut reached = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reached.count += u64::from(is_counted);
        let count = reached.count;
        if let Some(trace) = reached.trace.as_mut() {
            // Not being able to trace must not change what the process does.
            drop(writeln!(trace, "{count} {boundary}"));
        }
        let is_new = self.spared.as_ref().is_some_and(|spared| spared.is_new(boundary));
        if is_new || is_counted && self.at == Some(count) {
            // SIGKILL cannot be caught: nothing of this process runs any further.
            let _sent = kill(Pid::this(), Signal::SIGKILL);
            loop {
                std::thread::park();
            }
        }
    }
}

impl Spared {
    /// Whether nobody died here yet; from now on somebody has.
    fn is_new(&self, boundary: &str) -> bool {
        // Who cannot write it down would die here for ever.
        !self.names.contains(boundary) && writeln!(&self.file, "{boundary}").is_ok()
    }
}
