//! Files of ours in other people's repositories: what they hold, and whether somebody changed them.
//!
//! Each begins with a line that carries the digest of what follows. So a file that we wrote and nobody
//! touched can be told from one that was edited, and from one that was never ours. [`installed`] looks at
//! what is there; everything else is pure.

pub(super) mod installed;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Digest;

/// Who runs the pipeline.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub(super) enum Provider {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
    /// Azure Pipelines.
    AzureDevops,
    /// Jenkins.
    Jenkins,
    /// `CircleCI`.
    Circleci,
}

/// What a template is filled in with.
#[derive(Clone, Debug)]
pub(super) struct Values<'a> {
    /// The project.
    pub(super) project: &'a str,
    /// The parent of the branches.
    pub(super) source: &'a str,
    /// The connection of our configuration.
    pub(super) connection: &'a str,
}

/// A file that we write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Template {
    /// Where it lies in the repository, by default.
    pub(super) path: &'static str,
    comment: (&'static str, &'static str),
    text: &'static str,
}

const HASHES: (&str, &str) = ("# ", "");

/// What agents are told.
pub(super) const AGENTS: Template = Template {
    path: "docs/lakebase-agents.md",
    comment: ("<!-- ", " -->"),
    text: include_str!("templates/agents.md"),
};

/// The workflow that the pipelines run.
pub(super) const PR_WORKFLOW: Template = Template {
    path: "workflows/pr_branch.yaml",
    comment: HASHES,
    text: include_str!("../../../workflows/pr_branch.yaml"),
};

/// The workflow that agents run.
pub(super) const AGENT_WORKFLOW: Template = Template {
    path: "workflows/agent_sandbox.yaml",
    comment: HASHES,
    text: include_str!("../../../workflows/agent_sandbox.yaml"),
};

impl Provider {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Github, Self::Gitlab, Self::AzureDevops, Self::Jenkins, Self::Circleci];

    /// Its file. None of them takes the place of a file that a repository is likely to have.
    pub(super) const fn template(self) -> Template {
        match self {
            Self::Github => Template {
                path: ".github/workflows/lakebase.yml",
                comment: HASHES,
                text: include_str!("templates/github.yml"),
            },
            Self::Gitlab => Template {
                path: ".gitlab/lakebase.yml",
                comment: HASHES,
                text: include_str!("templates/gitlab.yml"),
            },
            Self::AzureDevops => Template {
                path: "azure-pipelines-lakebase.yml",
                comment: HASHES,
                text: include_str!("templates/azure_devops.yml"),
            },
            Self::Jenkins => Template {
                path: "Jenkinsfile.lakebase",
                comment: ("// ", ""),
                text: include_str!("templates/jenkins.groovy"),
            },
            Self::Circleci => Template {
                path: ".circleci/lakebase.yml",
                comment: HASHES,
                text: include_str!("templates/circleci.yml"),
            },
        }
    }
}

const MARK: &str = "written by lakeops, sha256 ";

impl Template {
    /// The file for these values, with its digest before it.
    pub(super) fn render(self, values: &Values<'_>) -> String {
        let body = self
            .text
            .replace("@project@", values.project)
            .replace("@source@", values.source)
            .replace("@connection@", values.connection);
        let (begin, end) = self.comment;
        format!("{begin}{MARK}{}{end}\n{body}", Digest::of_bytes(body.as_bytes()))
    }
}

/// How an installed file compares with what we would write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Drift {
    /// It is not there.
    Missing,
    /// It is as we would write it.
    Current,
    /// We wrote it, nobody touched it, and now we would write it otherwise.
    Outdated,
    /// We wrote it, and somebody edited it.
    Edited,
    /// Somebody else wrote it.
    Foreign,
}

/// Compares an installed file with what we would write.
pub(super) fn drift(installed: Option<&str>, rendered: &str) -> Drift {
    let Some(installed) = installed else { return Drift::Missing };
    // Without its first line it is the same file, got in another way.
    let bare = rendered.split_once('\n').map_or(rendered, |(_, body)| body);
    if installed == rendered || installed == bare {
        return Drift::Current;
    }
    let Some((first, body)) = installed.split_once('\n') else { return Drift::Foreign };
    let Some((_, rest)) = first.split_once(MARK) else { return Drift::Foreign };
    let digest = rest.split_whitespace().next().unwrap_or_default();
    if digest == Digest::of_bytes(body.as_bytes()).as_str() {
        Drift::Outdated
    } else {
        Drift::Edited
    }
}

/// The lines that differ, for people: at most `most`, `-` for what is there, `+` for what we would write.
pub(super) fn difference(installed: &str, rendered: &str, most: usize) -> Vec<String> {
    let (there, ours): (Vec<_>, Vec<_>) = (installed.lines().collect(), rendered.lines().collect());
    let begin = there.iter().zip(&ours).take_while(|(a, b)| a == b).count();
    let tail = there.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| a == b).count();
    let tail = tail.min(there.len().min(ours.len()) - begin);
    let middle = |lines: &[&str], sign: char| -> Vec<String> {
        let end = lines.len() - tail;
        let lines = lines.get(begin..end).unwrap_or_default();
        lines.iter().map(|line| format!("{sign} {line}")).collect()
    };
    let mut lines = middle(&there, '-');
    lines.extend(middle(&ours, '+'));
    if lines.len() > most {
        let more = lines.len() - most;
        lines.truncate(most);
        lines.push(format!("… {more} more lines"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> =
        Values { project: "shop", source: "staging", connection: "lakebase" };

    #[test]
    fn every_template_is_filled_in_and_calls_us() {
        let all = Provider::ALL.map(Provider::template);
        for template in all.iter().chain(&[AGENTS]) {
            let text = template.render(&VALUES);
            for name in ["@project@", "@source@", "@connection@"] {
                assert!(template.text.contains(name), "{}: {name}", template.path);
                assert!(!text.contains(name), "{}", template.path);
            }
            assert!(text.contains("lakeops run "), "{}", template.path);
            assert!(text.lines().next().unwrap().contains(MARK), "{}", template.path);
        }
        let mut paths: Vec<_> = all.iter().map(|template| template.path).collect();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), all.len());
    }

    #[test]
    fn the_yaml_of_every_provider_is_yaml() {
        for provider in Provider::ALL.into_iter().filter(|one| *one != Provider::Jenkins) {
            let text = provider.template().render(&VALUES);
            let file: Result<serde_json::Value, _> = serde_yaml_of(&text);
            assert!(file.unwrap().is_object(), "{provider:?}");
        }
    }

    fn serde_yaml_of(text: &str) -> Result<serde_json::Value, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn whose_change_it_is() {
        let ours = Provider::Github.template().render(&VALUES);
        let older = Provider::Github.template().render(&Values { source: "production", ..VALUES });
        assert_eq!(drift(None, &ours), Drift::Missing);
        assert_eq!(drift(Some(&ours), &ours), Drift::Current);
        let workflow = PR_WORKFLOW.render(&VALUES);
        assert_eq!(drift(Some(PR_WORKFLOW.text), &workflow), Drift::Current);
        assert_eq!(drift(Some(&older), &ours), Drift::Outdated);
        let edited = older.replace("timeout-minutes: 30", "timeout-minutes: 90");
        assert_eq!(drift(Some(&edited), &ours), Drift::Edited);
        assert_eq!(drift(Some("name: ci\n"), &ours), Drift::Foreign);
        assert_eq!(drift(Some(""), &ours), Drift::Foreign);
    }

    #[test]
    fn only_what_differs_is_shown() {
        assert_eq!(difference("a\nb\nc", "a\nx\ny\nc", 9), ["- b", "+ x", "+ y"]);
        assert_eq!(difference("a\nb", "a", 9), ["- b"]);
        assert_eq!(difference("a\na", "a", 9).len(), 1);
        assert_eq!(difference("a\nb\nc", "x\ny\nz", 2), ["- a", "- b", "… 4 more lines"]);
        assert!(difference("a", "a", 9).is_empty());
    }
}
