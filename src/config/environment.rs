//! What the surroundings say: variables, the working directory, who and where we are.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// The surroundings of the process. Nothing else of the program reads them.
pub trait Environment: Send + Sync {
    /// A variable, when it is set and not empty.
    fn var(&self, name: &str) -> Option<String>;
    /// Every variable whose name begins with `prefix`, by name.
    fn vars(&self, prefix: &str) -> BTreeMap<String, String>;
    /// The working directory.
    fn current_dir(&self) -> PathBuf;
    /// The name of the user who runs the process.
    fn user(&self) -> String;
    /// Where the process runs: host and terminal.
    fn place(&self) -> String;
}

/// The real surroundings.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

#[expect(clippy::disallowed_methods, reason = "the one place that reads the real environment")]
impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    fn vars(&self, prefix: &str) -> BTreeMap<String, String> {
        // A variable that is not Unicode cannot be one of ours.
        let texts = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        texts.filter(|(name, value)| name.starts_with(prefix) && !value.is_empty()).collect()
    }

    fn current_dir(&self) -> PathBuf {
        std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."))
    }

    fn user(&self) -> String {
        let uid = nix::unistd::geteuid();
        match nix::unistd::User::from_uid(uid) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => format!("uid:{uid}"),
        }
    }

    fn place(&self) -> String {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let host = host.unwrap_or_else(|| "unknown host".to_owned());
        let terminal = std::fs::read_link("/proc/self/fd/0").ok();
        match terminal.filter(|path| path.starts_with("/dev") && std::io::stdin().is_terminal()) {
            Some(terminal) => format!("{host}:{}", terminal.display()),
            None => host,
        }
    }
}

/// Surroundings that are given: for tests, and for programs that embed this one.
#[derive(Clone, Debug, Default)]
pub struct FixedEnvironment {
    /// The variables.
    pub vars: BTreeMap<String, String>,
    /// The working directory.
    pub current_dir: PathBuf,
    /// The user.
    pub user: String,
    /// The place.
    pub place: String,
}

impl Environment for FixedEnvironment {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).filter(|value| !value.is_empty()).cloned()
    }

    fn vars(&self, prefix: &str) -> BTreeMap<String, String> {
        let found = self.vars.iter().filter(|(name, _)| name.starts_with(prefix));
        found.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    fn current_dir(&self) -> PathBuf {
        self.current_dir.clone()
    }

    fn user(&self) -> String {
        self.user.clone()
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}
