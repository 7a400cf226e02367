//! What an expression or a script saw.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A name and the value that an expression or a script saw under it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The name, such as `steps.decide.act`.
    pub name: String,
    /// Its value.
    pub value: Value,
}
