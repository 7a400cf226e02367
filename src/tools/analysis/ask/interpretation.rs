//! What a question was taken for: passed from the tool that finds to the tool that answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rank::Correction;

/// What something of the catalogue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntentKind {
    /// A tool or a named query that is looked at for an answer.
    Source,
    /// A tool that is pointed at: it changes something, or needs to be told more.
    Tool,
    /// A workflow that is pointed at.
    Workflow,
    /// A verb of the command line that is pointed at.
    Verb,
}

/// Something that a question may be about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Intent {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: IntentKind,
    /// How well it matches: BM25.
    pub score: f64,
    /// The share of the question that it covers, by the weight of words.
    pub cover: f64,
    /// The words of the question that it was found by.
    pub because: Vec<String>,
    /// What it does.
    pub says: String,
    /// What to type to use it.
    pub command: String,
}

/// What a question was taken for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Interpretation {
    /// The question without the statements in it.
    pub question: String,
    /// Whether anything in the catalogue answers it.
    pub answerable: bool,
    /// What it is about, the likeliest first.
    pub intents: Vec<Intent>,
    /// The tools and named queries that are looked at.
    pub sources: Vec<String>,
    /// What is near, and was not chosen.
    pub nearest: Vec<Intent>,
    /// Words that were read as others.
    pub corrections: Vec<Correction>,
    /// Statements in the question: they are not run.
    pub left_out: Vec<String>,
}
