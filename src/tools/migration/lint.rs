//! What a reviewer would say: the rules of squawk. PURE.

use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squawk_linter::{Linter, Rule, Version};
use squawk_syntax::{Parse, SourceFile};

/// The version of PostgreSQL that is assumed.
const POSTGRES: &str = "17.0";

/// Rules that our own machinery answers: a file happens once, in one transaction with timeouts.
const ANSWERED: [Rule; 4] = [
    Rule::PreferRobustStmts,
    Rule::RequireTimeoutSettings,
    Rule::RequireLockTimeout,
    Rule::RequireStatementTimeout,
];

/// Something that a rule says about a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Finding {
    /// The rule; <https://squawkhq.com/docs/rules> explains it.
    pub(in crate::tools) rule: String,
    /// The line that it is about.
    pub(in crate::tools) line: usize,
    /// What is wrong.
    pub(in crate::tools) message: String,
    /// What to do instead.
    pub(in crate::tools) help: Option<String>,
}

/// What the rules say about a file. A comment `-- squawk-ignore RULE` silences one.
pub(super) fn lint(
    file: &Parse<SourceFile>,
    text: &str,
    in_transaction: bool,
    line_of: impl Fn(usize) -> usize,
) -> Vec<Finding> {
    let mut linter = Linter::with_rules(&[], &ANSWERED);
    linter.settings.assume_in_transaction = in_transaction;
    if let Ok(version) = Version::from_str(POSTGRES) {
        linter.settings.pg_version = version;
    }
    let found = linter.lint(file, text).into_iter().map(|one| Finding {
        rule: one.code.to_string(),
        line: line_of(one.text_range.start().into()),
        message: one.message,
        help: one.help,
    });
    found.collect()
}
