//! The server process of a data directory, as the data directory and the operating system tell it.

use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::directory::FileError;

/// The first part of `cluster_name`; the token of the start follows.
pub(super) const MARK: &str = "cluster_name=lakeops-";

/// What `postmaster.pid` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pid: Pid,
    /// Whether it takes connections.
    pub ready: bool,
}

impl Postmaster {
    pub(super) fn pid(self) -> i32 {
        self.pid.as_raw()
    }

    /// Reads `postmaster.pid`; `None` when there is none, or none yet.
    fn read(data: &Path) -> Result<Option<Self>, FileError> {
        let path = data.join("postmaster.pid");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(FileError::new("read", &path, e)),
        };
        // Zero and negative numbers would name process groups.
        let pid =
            text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 1);
        let ready = text.lines().nth(7).is_some_and(|line| line.trim() == "ready");
        Ok(pid.map(|pid| Self { pid: Pid::from_raw(pid), ready }))
    }
}

/// Who runs on a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody.
    Nobody,
    /// Nobody any more; `postmaster.pid` is left over. `reused` when its process id now belongs to
    /// somebody else's process.
    Dead { reused: bool },
    /// The server that we started with this token.
    Ours(Postmaster),
    /// A server that we did not start, or of which we do not know it.
    Foreign { pid: i32 },
}

/// Finds out who runs on `data`, and whether it is the server that was started with `token`.
pub(super) fn examine(data: &Path, token: Option<&str>) -> Result<Standing, FileError> {
    let Some(postmaster) = Postmaster::read(data)? else { return Ok(Standing::Nobody) };
    let pid = postmaster.pid();
    if kill(postmaster.pid, None) == Err(Errno::ESRCH) {
        return Ok(Standing::Dead { reused: false });
    }
    Ok(match Witness::of(pid, data) {
        Witness::Gone => Standing::Dead { reused: false },
        Witness::Unrelated => Standing::Dead { reused: true },
        Witness::OnOurData { arguments } if token.is_some_and(|it| names(&arguments, it)) => {
            Standing::Ours(postmaster)
        }
        Witness::OnOurData { .. } | Witness::Silent => Standing::Foreign { pid },
    })
}

fn names(arguments: &[u8], token: &str) -> bool {
    let mark = format!("{MARK}{token}").into_bytes();
    arguments.split(|byte| *byte == 0).any(|argument| argument == mark)
}

/// Whether the server that had this process id still runs; its `postmaster.pid` goes a little earlier.
pub(super) fn is_alive(pid: i32, data: &Path, token: &str) -> bool {
    matches!(Witness::of(pid, data), Witness::OnOurData { arguments } if names(&arguments, token))
}

/// What the operating system says of a process.
enum Witness {
    Gone,
    Unrelated,
    OnOurData {
        arguments: Vec<u8>,
    },
    /// It says nothing, so the process is not touched.
    Silent,
}

impl Witness {
    /// A server works in its data directory and keeps the command line that it was started with.
    #[cfg(target_os = "linux")]
    fn of(pid: i32, data: &Path) -> Self {
        let process = Path::new("/proc").join(pid.to_string());
        let arguments = match fs::read(process.join("cmdline")) {
            Ok(arguments) if arguments.is_empty() => return Self::Gone, // a zombie
            Ok(arguments) => arguments,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::Gone,
            Err(_) => return Self::Silent,
        };
        match fs::read_link(process.join("cwd")) {
            Ok(cwd) if cwd == data => Self::OnOurData { arguments },
            Ok(_) => Self::Unrelated,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Self::Gone,
            Err(_) => Self::Silent,
        }
    }

    /// Elsewhere `ps` tells the command line.
    #[cfg(not(target_os = "linux"))]
    fn of(pid: i32, data: &Path) -> Self {
        let ps = std::process::Command::new("ps")
            .args(["-ww", "-o", "command=", "-p", &pid.to_string()])
            .output();
        let Ok(output) = ps else { return Self::Silent };
        if output.stdout.trim_ascii().is_empty() {
            return Self::Gone;
        }
        let names_data = output
            .stdout
            .windows(data.as_os_str().len().max(1))
            .any(|part| part == data.as_os_str().as_encoded_bytes());
        if !names_data {
            return Self::Silent;
        }
        let mut arguments = output.stdout;
        arguments.iter_mut().filter(|byte| byte.is_ascii_whitespace()).for_each(|byte| *byte = 0);
        Self::OnOurData { arguments }
    }
}

/// Signals the server with this token, if it is still that one that runs there.
pub(super) fn signal(data: &Path, token: &str, signal: Signal) -> Result<bool, FileError> {
    let Standing::Ours(postmaster) = examine(data, Some(token))? else { return Ok(false) };
    match kill(postmaster.pid, signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(e) => Err(FileError::new("signal the server of", data, e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pid: &str) -> tempfile::TempDir {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join("postmaster.pid"), format!("{pid}\n/x\n1\n2\n3\n4\n5\nready\n"))
            .unwrap();
        data
    }

    #[test]
    fn no_number_is_mistaken_for_a_process() {
        for text in ["", "0", "1", "-1", "-4711", "x", "99999999999"] {
            assert_eq!(examine(data(text).path(), Some("t")).unwrap(), Standing::Nobody, "{text}");
        }
    }

    #[test]
    fn another_process_is_never_ours() {
        let own = std::process::id().to_string();
        let data = data(&own);
        let token = "0123456789abcdef";
        assert!(!matches!(examine(data.path(), Some(token)).unwrap(), Standing::Ours(_)));
        assert!(!signal(data.path(), token, Signal::SIGKILL).unwrap());
    }

    #[test]
    fn nobody_without_a_file() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(examine(data.path(), None).unwrap(), Standing::Nobody);
    }
}
