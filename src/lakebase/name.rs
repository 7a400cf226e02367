//! Names of resources: `projects/shop/branches/dev/endpoints/primary`. PURE.

use std::fmt;

use crate::kernel::Failure;

/// What every path of the Postgres API begins with.
pub const BASE: &str = "/api/2.0/postgres/";

/// What the id of a branch that is there to be thrown away begins with.
pub const THROW_AWAY: &str = "tmp-";

/// The path of a resource or collection by its name.
pub fn path_of(name: impl fmt::Display) -> String {
    format!("{BASE}{name}")
}

/// The last part of a name: the id.
pub fn id_of(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// A text that is not the name of such a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of a {kind}; it reads `{form}`")]
pub struct NameError {
    text: String,
    kind: &'static str,
    form: &'static str,
}

/// Why an id cannot be one of a project, branch or endpoint: 1 to 63 lower-case letters, digits and
/// dashes, a letter first, no dash last.
pub fn check_id(id: &str) -> Result<(), InvalidId> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=63).contains(&id.len())
        && id.chars().all(fits)
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-');
    if valid { Ok(()) } else { Err(InvalidId { id: id.to_owned() }) }
}

/// An id that the service would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{id}` cannot be an id: write 1 to 63 lower-case letters, digits and dashes, beginning with a \
     letter and not ending with a dash"
)]
pub struct InvalidId {
    id: String,
}

/// Refuses, under a code, a name that Unity Catalog would want in quotes: it enters the text of a statement.
pub fn need_unquoted(name: &str, code: &str) -> Result<(), Failure> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let begins = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    if name.starts_with(begins) && name.chars().all(fits) {
        return Ok(());
    }
    let text = format!("`{name}` is no name of Unity Catalog that needs no quotes");
    Err(Failure::permanent(code, text)
        .with_help("write letters, digits and underscores, beginning with a letter"))
}

/// `projects/{project}`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectName {
    /// The project's id.
    pub project: String,
}

/// `projects/{project}/branches/{branch}`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BranchName {
    /// The project's id.
    pub project: String,
    /// The branch's id.
    pub branch: String,
}

/// `projects/{project}/branches/{branch}/endpoints/{endpoint}`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// The branch.
    pub branch: BranchName,
    /// The endpoint's id.
    pub endpoint: String,
}

impl ProjectName {
    /// The name of a project.
    pub fn new(project: impl Into<String>) -> Self {
        Self { project: project.into() }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match parts(text).as_slice() {
            ["projects", project] => Ok(Self::new(*project)),
            _ => Err(wrong(text, "project", "projects/P")),
        }
    }

    /// One of its branches.
    pub fn branch(&self, branch: impl Into<String>) -> BranchName {
        BranchName { project: self.project.clone(), branch: branch.into() }
    }

    /// The path of the project.
    pub fn path(&self) -> String {
        path_of(self)
    }

    /// The path of its branches.
    pub fn branches_path(&self) -> String {
        format!("{}/branches", self.path())
    }

    /// The path of its snapshots.
    pub fn snapshots_path(&self) -> String {
        format!("{}/snapshots", self.path())
    }
}

impl BranchName {
    /// The name of a branch.
    pub fn new(project: impl Into<String>, branch: impl Into<String>) -> Self {
        Self { project: project.into(), branch: branch.into() }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match parts(text).as_slice() {
            ["projects", project, "branches", branch] => Ok(Self::new(*project, *branch)),
            _ => Err(wrong(text, "branch", "projects/P/branches/B")),
        }
    }

    /// Its project.
    pub fn parent(&self) -> ProjectName {
        ProjectName::new(self.project.clone())
    }

    /// One of its endpoints.
    pub fn endpoint(&self, endpoint: impl Into<String>) -> EndpointName {
        EndpointName { branch: self.clone(), endpoint: endpoint.into() }
    }

    /// The path of the branch.
    pub fn path(&self) -> String {
        path_of(self)
    }

    /// The path of one of its collections: `endpoints`, `roles`, `databases`.
    pub fn collection_path(&self, plural: &str) -> String {
        format!("{}/{plural}", self.path())
    }
}

impl EndpointName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match parts(text).as_slice() {
            ["projects", project, "branches", branch, "endpoints", endpoint] => {
                Ok(BranchName::new(*project, *branch).endpoint(*endpoint))
            }
            _ => Err(wrong(text, "endpoint", "projects/P/branches/B/endpoints/E")),
        }
    }

    /// The path of the endpoint.
    pub fn path(&self) -> String {
        path_of(self)
    }
}

fn parts(text: &str) -> Vec<&str> {
    // An empty part is no id: it matches nothing.
    if text.split('/').any(str::is_empty) { Vec::new() } else { text.split('/').collect() }
}

fn wrong(text: &str, kind: &'static str, form: &'static str) -> NameError {
    NameError { text: text.to_owned(), kind, form }
}

impl fmt::Display for ProjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}", self.project)
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "projects/{}/branches/{}", self.project, self.branch)
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/endpoints/{}", self.branch, self.endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let text = "projects/shop/branches/dev/endpoints/primary";
        let name = EndpointName::parse(text).unwrap();
        assert_eq!(name.to_string(), text);
        assert_eq!(name.branch, BranchName::parse("projects/shop/branches/dev").unwrap());
        assert_eq!(name.branch.parent().path(), "/api/2.0/postgres/projects/shop");
        assert_eq!(id_of(text), "primary");
        for wrong in ["", "projects/", "projects/a/b", "projects//branches/x", "branches/x"] {
            assert!(BranchName::parse(wrong).is_err(), "{wrong}");
            assert!(ProjectName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ids() {
        for good in ["a", "pr-12", "a1", &"a".repeat(63)] {
            check_id(good).unwrap();
        }
        for bad in ["", "1a", "a-", "A", "a_b", "-a", &"a".repeat(64), "ä"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }
}
