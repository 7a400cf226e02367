//! What a tool is given to look with.

use serde_json::Value;

use super::rules::Rules;
use crate::config::Settings;
use crate::kernel::{Clock, Target};
use crate::postgres::PgReader;

/// The read-only context of both kinds of tools. Nothing in it can change anything.
pub struct ReadContext<'a> {
    /// The target's database; connects on first use, `READ ONLY` transactions only.
    pub pg: &'a PgReader,
    /// The clock.
    pub clock: &'a dyn Clock,
    /// Thresholds and limits for this target.
    pub settings: &'a Settings,
    /// Where the step works.
    pub target: &'a Target,
    /// Earlier outputs of the same tool on the same target, newest first: journaled facts.
    pub earlier: &'a [Value],
    /// The SOPs that tools judge by.
    pub rules: &'a dyn Rules,
}
