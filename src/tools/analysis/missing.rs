//! What could not be measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Something that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NotMeasured {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The statement that makes it measurable, when there is one.
    pub needs: Option<String>,
}

impl NotMeasured {
    /// Something that cannot be measured here.
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), needs: None }
    }

    /// The same with the statement that makes it measurable.
    #[must_use]
    pub fn needs(self, statement: impl Into<String>) -> Self {
        Self { needs: Some(statement.into()), ..self }
    }
}
