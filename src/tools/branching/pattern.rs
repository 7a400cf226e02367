//! The branch trees that projects are made with: a table. PURE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name;
use crate::kernel::{Failure, Span};

/// The branch that every project is made with.
pub(in crate::tools) const ROOT: &str = "production";

const WEEK: Span = Span::from_secs(7 * 24 * 3600);

/// Which branches a project is made with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Pattern {
    /// `production`, and `development` for a week.
    SimpleDevProd,
    /// `production`, and from it `staging`, which stays, and `development` for a week.
    #[default]
    MultiEnvPipeline,
    /// `production`, and from it one `dev-NAME` for each developer, for a week.
    PerDeveloper,
    /// `production`, and from it `staging`, which the branches of pull requests come from.
    CicdEphemeral,
    /// `production` only: each tenant has a project of its own.
    MultiTenantProject,
    /// `production`, and from it `staging` and `development`, which both stay: tenants are schemas, and
    /// row security keeps them apart.
    MultiTenantSchema,
}

/// How a branch of a pattern is kept from harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Protection {
    /// By the platform, which protects one branch of a project.
    Platform,
    /// By the branch policy.
    Policy,
    /// Not at all.
    None,
}

/// A branch that a pattern wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tools) struct Wanted {
    /// Its id.
    pub(in crate::tools) branch: String,
    /// The id of its parent; the root has none.
    pub(in crate::tools) source: Option<&'static str>,
    /// How long it lives; `None`: it stays.
    pub(in crate::tools) ttl: Option<Span>,
    /// How it is kept from harm.
    pub(in crate::tools) protection: Protection,
}

/// A line of the table.
struct Line(&'static str, Option<Span>, Protection);

const PRODUCTION: Line = Line(ROOT, None, Protection::Platform);
const STAGING: Line = Line("staging", None, Protection::Policy);
const DEVELOPMENT: Line = Line("development", Some(WEEK), Protection::None);
const LASTING_DEVELOPMENT: Line = Line("development", None, Protection::None);

impl Pattern {
    /// The branches that have a name of their own; those of developers come on top. All but the root
    /// come from the root.
    const fn lines(self) -> &'static [Line] {
        match self {
            Self::SimpleDevProd => &[PRODUCTION, DEVELOPMENT],
            Self::MultiEnvPipeline => &[PRODUCTION, STAGING, DEVELOPMENT],
            Self::CicdEphemeral => &[PRODUCTION, STAGING],
            Self::PerDeveloper | Self::MultiTenantProject => &[PRODUCTION],
            Self::MultiTenantSchema => &[PRODUCTION, STAGING, LASTING_DEVELOPMENT],
        }
    }

    /// The branches, the root first.
    pub(in crate::tools) fn branches(self, developers: &[String]) -> Result<Vec<Wanted>, Failure> {
        if self != Self::PerDeveloper && !developers.is_empty() {
            let text = "`developers` belongs to the pattern `per_developer`";
            return Err(Failure::permanent("branching::no_developers", text));
        }
        let mut wanted: Vec<Wanted> = self
            .lines()
            .iter()
            .map(|Line(branch, ttl, protection)| Wanted {
                branch: (*branch).to_owned(),
                source: (*branch != ROOT).then_some(ROOT),
                ttl: *ttl,
                protection: *protection,
            })
            .collect();
        for developer in developers {
            let branch = name::to_id(&format!("dev-{developer}"))?;
            if wanted.iter().any(|known| known.branch == branch) {
                let text = format!("two developers would share the branch `{branch}`");
                return Err(Failure::permanent("branching::same_branch", text));
            }
            let (source, protection) = (Some(ROOT), Protection::None);
            wanted.push(Wanted { branch, source, ttl: Some(WEEK), protection });
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Pattern; 6] = [
        Pattern::SimpleDevProd,
        Pattern::MultiEnvPipeline,
        Pattern::PerDeveloper,
        Pattern::CicdEphemeral,
        Pattern::MultiTenantProject,
        Pattern::MultiTenantSchema,
    ];

    #[test]
    fn every_pattern_protects_one_branch_by_the_platform_and_comes_from_the_root() {
        for pattern in ALL {
            let branches = pattern.branches(&[]).unwrap();
            let by_platform = |one: &&Wanted| one.protection == Protection::Platform;
            let protected: Vec<_> = branches.iter().filter(by_platform).collect();
            assert_eq!(protected.len(), 1, "{pattern:?}: the platform protects one");
            assert_eq!((protected[0].branch.as_str(), protected[0].source), (ROOT, None));
            for branch in branches.iter().filter(|one| one.branch != ROOT) {
                assert_eq!(branch.source, Some(ROOT), "{pattern:?}");
            }
        }
    }

    #[test]
    fn the_default_has_both_environments_from_production() {
        let branches = Pattern::default().branches(&[]).unwrap();
        let names: Vec<_> = branches.iter().map(|one| (one.branch.as_str(), one.ttl)).collect();
        assert_eq!(names, [("production", None), ("staging", None), ("development", Some(WEEK))]);
        assert_eq!(branches[1].protection, Protection::Policy);
    }

    #[test]
    fn developers_get_branches_of_their_own() {
        let developers = ["Anna".to_owned(), "bob.b".to_owned()];
        let branches = Pattern::PerDeveloper.branches(&developers).unwrap();
        let names: Vec<_> = branches.iter().map(|one| one.branch.as_str()).collect();
        assert_eq!(names, ["production", "dev-anna", "dev-bob-b"]);
        let twice = ["Anna".to_owned(), "anna".to_owned()];
        let error = Pattern::PerDeveloper.branches(&twice).unwrap_err();
        assert_eq!(error.code, "branching::same_branch");
        assert!(Pattern::SimpleDevProd.branches(&developers).is_err());
    }
}
