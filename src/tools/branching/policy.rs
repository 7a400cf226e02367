//! Asking the branch policy, `sops/branch_policy.rhai`, before anything is proposed.

use chrono::Timelike as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::capacity::MOST_UNARCHIVED;
use super::survey::Survey;
use crate::kernel::{Failure, Risk, Span};
use crate::sop::Scope;
use crate::tools::ReadContext;
use crate::tools::rules::BRANCH_POLICY;

/// What is to be done with a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Act {
    /// Make it.
    Create,
    /// Delete it.
    Delete,
    /// Set it back to its parent.
    Reset,
    /// Have the platform protect it.
    Protect,
    /// End that.
    Unprotect,
    /// Change the structure of its databases.
    Migrate,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Creator {
    /// A person.
    #[default]
    Human,
    /// A program that decides by itself.
    Agent,
    /// A pipeline.
    Ci,
}

/// What the policy is asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::tools) struct Question<'a> {
    /// What is to be done.
    pub(in crate::tools) act: Act,
    /// The id of the branch.
    pub(in crate::tools) branch: &'a str,
    /// Who asks.
    pub(in crate::tools) creator: Creator,
    /// The id of the parent that is asked for.
    pub(in crate::tools) source: Option<&'a str>,
    /// How long it is to live, where that is asked for.
    pub(in crate::tools) ttl: Option<Span>,
    /// Whether it is to stay.
    pub(in crate::tools) no_expiry: bool,
    /// Whether a reviewed promotion asks.
    pub(in crate::tools) promotion: bool,
}

impl<'a> Question<'a> {
    /// A question by a person, about a branch that is there.
    pub(in crate::tools) const fn new(act: Act, branch: &'a str) -> Self {
        Self {
            act,
            branch,
            creator: Creator::Human,
            source: None,
            ttl: None,
            no_expiry: false,
            promotion: false,
        }
    }
}

/// What the policy answered; a refusal is a failure instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools) struct Answer {
    /// Why a person is to be asked; empty: nobody is.
    pub(in crate::tools) ask: Vec<String>,
    /// What is worth knowing.
    pub(in crate::tools) warnings: Vec<String>,
    /// How long the branch lives; `None`: it stays.
    pub(in crate::tools) ttl: Option<Span>,
}

impl Answer {
    /// The risk of a change: high when a person is to be asked.
    pub(in crate::tools) fn risk(&self, own: Risk) -> Risk {
        if self.ask.is_empty() { own } else { Risk::High }
    }

    /// A reason with what the policy adds to it.
    pub(in crate::tools) fn because(&self, why: &str) -> String {
        let added = self.ask.iter().chain(&self.warnings);
        std::iter::once(why).chain(added.map(String::as_str)).collect::<Vec<_>>().join("; ")
    }
}

#[derive(Deserialize)]
struct Said {
    verdict: String,
    #[serde(default)]
    reasons: Vec<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    ttl: Option<f64>,
}

/// Asks the policy; a refusal is a failure. `survey` is the project as it is, or `None` when it is yet to
/// be made.
pub(in crate::tools) fn ask(
    cx: &ReadContext<'_>,
    survey: Option<&Survey>,
    question: Question<'_>,
) -> Result<Answer, Failure> {
    match consult(cx, survey, question)? {
        (answer, refusal) if refusal.is_empty() => Ok(answer),
        (_, refusal) => Err(refused(question, &refusal)),
    }
}

/// What the policy says, and why it refuses; no reasons: it does not.
pub(in crate::tools) fn consult(
    cx: &ReadContext<'_>,
    survey: Option<&Survey>,
    question: Question<'_>,
) -> Result<(Answer, Vec<String>), Failure> {
    let said = cx.rules.decide(BRANCH_POLICY, &scope(cx, survey, question))?;
    let invalid = |why: &str| {
        Failure::permanent("branch_policy::invalid", format!("`{BRANCH_POLICY}` {why}"))
            .with_help("`lakeops sop test branch_policy` shows what it returns")
    };
    let said: Said = serde_json::from_value(said)
        .map_err(|error| invalid(&format!("returned something else than a decision: {error}")))?;
    let (ask, mut refusal) = match said.verdict.as_str() {
        "allow" => (Vec::new(), Vec::new()),
        "ask" => (said.reasons, Vec::new()),
        "refuse" => (Vec::new(), said.reasons),
        other => return Err(invalid(&format!("returned the verdict `{other}`"))),
    };
    if said.verdict == "refuse" && refusal.is_empty() {
        refusal.push("it says no".to_owned());
    }
    if said.verdict == "ask" && ask.is_empty() {
        return Err(invalid("asks without a reason"));
    }
    let ttl = said.ttl.map(std::time::Duration::try_from_secs_f64).transpose();
    let ttl = ttl.map_err(|error| invalid(&format!("returned a bad `ttl`: {error}")))?;
    Ok((Answer { ask, warnings: said.warnings, ttl: ttl.map(Span) }, refusal))
}

fn refused(question: Question<'_>, reasons: &[String]) -> Failure {
    let reasons = reasons.join("; ");
    let text = format!("the branch policy refuses it for `{}`: {reasons}", question.branch);
    Failure::permanent("branch_policy::refused", text)
        .with_help(format!("the rules are those of `{BRANCH_POLICY}`"))
}

fn scope(cx: &ReadContext<'_>, survey: Option<&Survey>, question: Question<'_>) -> Scope {
    let known = survey.and_then(|survey| survey.branch(question.branch));
    let status = known.map(|known| &known.branch.status);
    let now = cx.clock.now().to_datetime();
    let branch = json!({
        "name": question.branch,
        "exists": known.is_some(),
        "source": known.and_then(|known| known.source()),
        "is_default": status.is_some_and(|status| status.default),
        "is_protected": status.is_some_and(|status| status.is_protected),
        "children": known.map(|known| known.children.clone()).unwrap_or_default(),
    });
    let request = json!({
        "creator": question.creator,
        "ttl": question.ttl.map(|ttl| ttl.0.as_secs()),
        "no_expiry": question.no_expiry,
        "source": question.source,
        "promotion": question.promotion,
    });
    let project = json!({
        "id": survey.map(|survey| survey.project.as_str()).or(cx.target.project.as_deref()),
        "default_branch": survey.and_then(Survey::default_branch),
    });
    let counts = json!({
        "unarchived": survey.map_or(0, |survey| survey.unarchived().count()),
        "most_unarchived": MOST_UNARCHIVED,
    });
    let now = json!({ "hour": now.hour(), "minute": now.minute() });
    let values: [(&str, Value); 6] = [
        ("action", json!(question.act)),
        ("project", project),
        ("branch", branch),
        ("request", request),
        ("counts", counts),
        ("now", now),
    ];
    values.map(|(name, value)| (name.to_owned(), value)).into()
}
