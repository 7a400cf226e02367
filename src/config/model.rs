//! `[model]`: a language model that explains what rules have found. Nothing needs one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::Span;

/// A language model behind an OpenAI-compatible endpoint, such as Databricks Foundation Models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Where it is, without `/chat/completions`: `https://HOST/serving-endpoints`. Not set: no model is asked.
    pub endpoint: Option<String>,
    /// Which one.
    pub name: String,
    /// The environment variable that holds the token; an endpoint of this machine may need none.
    pub token_from: String,
    /// How long an answer may take.
    pub timeout: Span,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            endpoint: None,
            name: "databricks-claude-sonnet-4".to_owned(),
            token_from: "LAKEOPS_MODEL_TOKEN".to_owned(),
            timeout: Span::from_secs(60),
        }
    }
}
