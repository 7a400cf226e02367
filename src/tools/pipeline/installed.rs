//! Looking at files of ours in a repository, and the changes that write them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Drift, Template, Values, difference, drift};
use crate::kernel::{Change, Digest, Failure, Inverse, Operation, Recovery, Risk};
use crate::tools::branching::lifecycle::is_done;
use crate::tools::tool::Settled;

/// How many lines of a difference are shown.
const MOST_LINES: usize = 40;

/// A file of ours, and what was found in its place.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Installed {
    /// Its absolute path.
    pub(in crate::tools) path: PathBuf,
    /// What is there.
    pub(in crate::tools) now: Option<String>,
    /// What we would write.
    pub(in crate::tools) rendered: String,
}

/// A file as outputs show it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct FileState {
    /// Its path.
    pub(in crate::tools) path: String,
    /// How it compared with what we would write.
    pub(in crate::tools) state: Drift,
    /// The lines that differ.
    pub(in crate::tools) difference: Vec<String>,
    /// Whether it was written now.
    #[serde(default)]
    pub(in crate::tools) written: bool,
}

impl Installed {
    /// Looks at the place of a file.
    pub(in crate::tools) async fn look(
        directory: &Path,
        (template, path): (Template, Option<&str>),
        values: &Values<'_>,
    ) -> Result<Self, Failure> {
        let path = path.unwrap_or(template.path);
        let stays =
            |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        if !Path::new(path).components().all(stays) {
            let text = format!("`{path}` is no path below {}", directory.display());
            return Err(Failure::permanent("pipeline::outside", text));
        }
        let path = directory.join(path);
        let now = match tokio::fs::read_to_string(&path).await {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                let text = format!("failed to read {}: {error}", path.display());
                return Err(Failure::permanent("pipeline::unreadable", text));
            }
        };
        Ok(Self { path, now, rendered: template.render(values) })
    }

    /// How it compares.
    pub(in crate::tools) fn drift(&self) -> Drift {
        drift(self.now.as_deref(), &self.rendered)
    }

    /// The same for an output.
    pub(in crate::tools) fn state(&self) -> FileState {
        let differs = self.now.as_deref().map(|now| difference(now, &self.rendered, MOST_LINES));
        FileState {
            path: self.path.display().to_string(),
            state: self.drift(),
            difference: differs.unwrap_or_default(),
            written: false,
        }
    }

    /// Writes it; `None` when it is as it should be. What somebody else wrote or edited is only
    /// overwritten when that was asked for, and then a person is asked.
    pub(in crate::tools) fn change(&self, overwrite: bool) -> Result<Option<Change>, Failure> {
        let state = self.drift();
        let path = self.path.display().to_string();
        let (why, risk) = match state {
            Drift::Current => return Ok(None),
            Drift::Missing => ("it is not there".to_owned(), Risk::Low),
            Drift::Outdated => ("it is an older one of ours".to_owned(), Risk::Low),
            Drift::Edited | Drift::Foreign if !overwrite => {
                let who = if state == Drift::Edited { "was edited" } else { "is not ours" };
                return Err(Failure::permanent("pipeline::drifted", format!("{path} {who}"))
                    .with_help(
                        "`detect_cicd_drift` shows what differs; `overwrite: true` replaces it",
                    ));
            }
            Drift::Edited => ("somebody edited it, and that is lost".to_owned(), Risk::High),
            Drift::Foreign => ("somebody else wrote it, and that is lost".to_owned(), Risk::High),
        };
        let digest = |text: &str| Digest::of_bytes(text.as_bytes());
        let write = |content: Option<&str>, before: Option<&str>| Operation::File {
            path: path.clone(),
            content: content.map(str::to_owned),
            before: before.map(digest),
        };
        let (now, ours) = (self.now.as_deref(), self.rendered.as_str());
        let mut change = Change::new(format!("file {path}"), why, write(Some(ours), now));
        change.risk = risk;
        change.inverse =
            Inverse::By { operation: write(now, Some(ours)), recovery: Recovery::Repeatable };
        change.independent = true;
        change.facts = json!(self.state());
        Ok(Some(change))
    }
}

/// The files of settled changes.
pub(in crate::tools) fn written(settled: &[Settled<'_>]) -> Vec<FileState> {
    let files = settled.iter().filter_map(|one| {
        let state: FileState = serde_json::from_value(one.change.facts.clone()).ok()?;
        Some(FileState { written: is_done(one), ..state })
    });
    files.collect()
}

/// A directory as an absolute path: a run may go on in a process that was started elsewhere.
pub(in crate::tools) fn directory(text: &str) -> Result<PathBuf, Failure> {
    std::path::absolute(text).map_err(|error| {
        Failure::permanent("pipeline::no_directory", format!("`{text}` is no directory: {error}"))
    })
}
