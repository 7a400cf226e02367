//! What workflow files can name outside themselves.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::source::SourceText;
use crate::tools::sql_catalog;

/// Scripts, SQL files and other workflows, by name.
pub trait Sources {
    /// The text of a script, by its path (`sops/connections.rhai`).
    fn script(&self, path: &str) -> Option<&str>;
    /// The paths of all scripts.
    fn scripts(&self) -> Vec<&str>;
    /// The text of a SQL file, by its path below `sql/` without the ending.
    fn sql(&self, name: &str) -> Option<&str>;
    /// The names of all SQL files.
    fn sql_names(&self) -> Vec<&str>;
    /// A workflow's file, by the workflow's name.
    fn workflow(&self, name: &str) -> Option<&SourceText>;
    /// The names of all workflows.
    fn workflows(&self) -> Vec<&str>;
}

/// Sources that are held in memory. The reviewed SQL files of the program are among them.
#[derive(Clone, Debug, Default)]
pub struct Library {
    scripts: BTreeMap<String, String>,
    sql: BTreeMap<Cow<'static, str>, Cow<'static, str>>,
    workflows: BTreeMap<String, SourceText>,
}

impl Library {
    /// A library that has the SQL files of the program and nothing else.
    pub fn new() -> Self {
        let sql = sql_catalog::FILES.iter();
        let sql = sql.map(|file| (file.name.into(), file.text.into())).collect();
        Self { sql, ..Self::default() }
    }

    /// Adds a script.
    #[must_use]
    pub fn with_script(mut self, path: impl Into<String>, text: impl Into<String>) -> Self {
        self.scripts.insert(path.into(), text.into());
        self
    }

    /// Adds a SQL file, or replaces the program's own.
    #[must_use]
    pub fn with_sql(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.sql.insert(Cow::Owned(name.into()), Cow::Owned(text.into()));
        self
    }

    /// Adds a workflow file; the workflow is known by the file's name.
    #[must_use]
    pub fn with_workflow(mut self, path: &str, text: impl Into<String>) -> Self {
        self.add_workflow(SourceText::new(path, text));
        self
    }

    /// Adds a workflow file; the workflow is known by the file's name.
    pub fn add_workflow(&mut self, source: SourceText) {
        self.workflows.insert(source.stem().to_owned(), source);
    }
}

impl Sources for Library {
    fn script(&self, path: &str) -> Option<&str> {
        self.scripts.get(path).map(String::as_str)
    }

    fn scripts(&self) -> Vec<&str> {
        self.scripts.keys().map(String::as_str).collect()
    }

    fn sql(&self, name: &str) -> Option<&str> {
        self.sql.get(name).map(Cow::as_ref)
    }

    fn sql_names(&self) -> Vec<&str> {
        self.sql.keys().map(Cow::as_ref).collect()
    }

    fn workflow(&self, name: &str) -> Option<&SourceText> {
        self.workflows.get(name)
    }

    fn workflows(&self) -> Vec<&str> {
        self.workflows.keys().map(String::as_str).collect()
    }
}
