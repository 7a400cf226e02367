//! Makes changes of pending migrations. PURE.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::class::Class;
use super::history::{CREATE, forget, guard, record};
use super::lint::Finding;
use super::reading::{Reading, Statement};
use super::source::Migration;
use super::version::Version;
use crate::kernel::change::Origin;
use crate::kernel::{
    Change, Failure, Inverse, Operation, Recovery, Risk, Span, SqlStatement, Target,
};
use crate::tools::branching::lifecycle;

/// Below this size (10 MiB) a table is locked, read or rewritten in a moment.
const SMALL: u64 = 10 << 20;

/// How long one waits for a lock by default: others queue behind whoever waits.
pub(in crate::tools) const LOCK_TIMEOUT: Span = Span::from_secs(2);

/// One statement of a migration, as people are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Judged {
    /// The line on which it begins.
    pub(in crate::tools) line: usize,
    /// Its text.
    pub(in crate::tools) sql: String,
    /// What it does to those who work with the database.
    pub(in crate::tools) class: Class,
    /// Why it is of that class.
    pub(in crate::tools) reason: String,
    /// The size of its table with indexes, where it works on one; 0 where that is not there yet.
    pub(in crate::tools) table_bytes: Option<u64>,
}

/// What is known about a migration that is pending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Facts {
    /// Its version.
    pub(in crate::tools) version: String,
    /// Its name.
    pub(in crate::tools) name: String,
    /// SHA-256 of its text.
    pub(in crate::tools) checksum: String,
    /// The worst of its statements.
    pub(in crate::tools) class: Class,
    /// How dangerous it is.
    pub(in crate::tools) risk: Risk,
    /// Its statements.
    pub(in crate::tools) statements: Vec<Judged>,
    /// What the rules say about it.
    pub(in crate::tools) lint: Vec<Finding>,
    /// A newer version that the database has already.
    pub(in crate::tools) out_of_order: Option<String>,
    /// How it is undone.
    pub(in crate::tools) undo: Undo,
}

/// How a migration is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Undo {
    /// The SQL that came with it.
    pub(in crate::tools) sql: Option<String>,
    /// Why it cannot be undone; absent: it can, and nothing is lost.
    pub(in crate::tools) impossible: Option<String>,
}

impl Facts {
    /// What a reviewer should know, as Markdown.
    pub(in crate::tools) fn markdown(&self) -> String {
        let mut text = format!("### {} {}\n\n", self.version, self.name);
        if let Some(newer) = &self.out_of_order {
            let _ = writeln!(text, "Out of order: {newer} was carried out before it.\n");
        }
        text.push_str("| line | does | because |\n| --- | --- | --- |\n");
        for one in &self.statements {
            let _ = writeln!(text, "| {} | {} | {} |", one.line, one.class.as_str(), one.reason);
        }
        for one in &self.lint {
            let _ = write!(text, "\n- line {}, `{}`: {}", one.line, one.rule, one.message);
        }
        let undo = match &self.undo.impossible {
            None => "Undone by the SQL that comes with it.".to_owned(),
            Some(why) => format!("Cannot be undone: {why}."),
        };
        let _ = write!(text, "\n\n{undo}\n\n");
        text
    }
}

/// A migration, read and compared.
pub(in crate::tools) struct Pending {
    /// The migration.
    pub(in crate::tools) migration: Migration,
    /// Its text, read.
    pub(in crate::tools) reading: Reading,
    /// What undoes it, read.
    pub(in crate::tools) down: Option<Reading>,
    /// What is known about it.
    pub(in crate::tools) facts: Facts,
}

impl Pending {
    /// Puts together what is known. `sizes` are the bytes of tables, `newest` is the newest version that
    /// the database has.
    pub(in crate::tools) fn new(
        (migration, reading, down): (Migration, Reading, Option<Reading>),
        sizes: &BTreeMap<String, u64>,
        newest: Option<&Version>,
    ) -> Self {
        // A table that is not there yet is made by an earlier file: nobody uses it.
        let bytes = |one: &Statement| {
            one.table.as_ref().map(|name| sizes.get(name).copied().unwrap_or_default())
        };
        let judged = reading.statements.iter().map(|one| Judged {
            line: one.line,
            sql: one.text.clone(),
            class: one.verdict.class,
            reason: one.verdict.reason.clone(),
            table_bytes: bytes(one),
        });
        let statements: Vec<Judged> = judged.collect();
        let out_of_order = newest.filter(|newest| **newest > migration.version);
        let mut risk = statements.iter().map(risk).max().unwrap_or(Risk::Medium);
        if out_of_order.is_some() {
            risk = Risk::High;
        }
        let facts = Facts {
            version: migration.version.to_string(),
            name: migration.name.clone(),
            checksum: migration.checksum(),
            class: statements.iter().map(|one| one.class).max().unwrap_or(Class::Safe),
            risk,
            undo: undo(&statements, migration.down.as_deref()),
            statements,
            lint: reading.lint.clone(),
            out_of_order: out_of_order.map(Version::to_string),
        };
        Self { migration, reading, down, facts }
    }

    /// The changes that carry it out: one transaction, or one change for each statement that PostgreSQL
    /// refuses in one, and then the record.
    pub(in crate::tools) fn changes(&self, limits: &Limits) -> Result<Vec<Change>, Failure> {
        let mut changes =
            if self.reading.in_transaction { vec![self.whole()] } else { self.one_by_one() };
        let facts = serde_json::to_value(&self.facts)
            .map_err(|error| Failure::permanent("migration::facts", error.to_string()))?;
        for change in &mut changes {
            let own = if limits.is_throw_away { Risk::Medium } else { self.facts.risk };
            change.risk = limits.at_least.max(own);
            change.guard = Some(guard(&self.migration));
            change.statement_timeout = limits.statement_timeout;
            // Whoever waits for old snapshots keeps nobody waiting.
            change.lock_timeout = match change.operation {
                Operation::Sql { transactional: false, .. } => None,
                _ => Some(limits.lock_timeout),
            };
        }
        if let Some(last) = changes.last_mut() {
            last.facts = facts;
            last.cost = self.cost();
        }
        Ok(changes)
    }

    fn object(&self) -> String {
        let Migration { version, name, .. } = &self.migration;
        if name.is_empty() {
            format!("migration {version}")
        } else {
            format!("migration {version} {name}")
        }
    }

    fn why(&self) -> String {
        let Facts { statements, out_of_order, .. } = &self.facts;
        let mut reasons: Vec<String> = statements
            .iter()
            .filter(|one| one.class > Class::Safe)
            .map(|one| format!("line {}: {}", one.line, one.reason))
            .collect();
        if let Some(newer) = out_of_order {
            reasons.insert(0, format!("out of order: {newer} was carried out before it"));
        }
        let text = format!("the database does not have {} yet", self.migration.label);
        std::iter::once(text).chain(reasons).collect::<Vec<_>>().join("; ")
    }

    fn whole(&self) -> Change {
        let own = self.reading.statements.iter().map(|one| SqlStatement::new(&one.text));
        let statements = std::iter::once(record(&self.migration)).chain(own).collect();
        let mut change =
            Change::new(self.object(), self.why(), Operation::Transaction { statements });
        change.recovery = Recovery::Transactional;
        change.inverse = self.impossible().unwrap_or_else(|| self.by(self.down.as_ref()));
        change
    }

    fn impossible(&self) -> Option<Inverse> {
        let why = self.facts.undo.impossible.clone();
        why.map(|why| Inverse::Impossible { why })
    }

    /// The SQL that undoes it and forgets it, in one transaction.
    fn by(&self, down: Option<&Reading>) -> Inverse {
        let own = down.into_iter().flat_map(|down| &down.statements);
        let own = own.map(|one| SqlStatement::new(&one.text));
        let statements = std::iter::once(forget(&self.migration)).chain(own).collect();
        Inverse::By {
            operation: Operation::Transaction { statements },
            recovery: Recovery::Transactional,
        }
    }

    fn one_by_one(&self) -> Vec<Change> {
        let own = &self.reading.statements;
        // What builds an index CONCURRENTLY is undone by what drops it so, one for one.
        let back = self.down.as_ref().map(|down| down.statements.iter().rev());
        let mut back = back.into_iter().flatten();
        let mut changes: Vec<Change> = own
            .iter()
            .map(|one| {
                let operation = Operation::sql_outside_transaction(&one.text);
                let mut change = Change::new(self.object(), self.why(), operation);
                change.recovery = one.outside.unwrap_or(Recovery::Ask);
                let down = back.next().map(|down| Inverse::By {
                    operation: Operation::sql_outside_transaction(&down.text),
                    recovery: down.outside.unwrap_or(Recovery::Ask),
                });
                change.inverse = self.impossible().or(down).unwrap_or(Inverse::Unneeded);
                change
            })
            .collect();
        let operation = Operation::Transaction { statements: vec![record(&self.migration)] };
        let why = "it is recorded when all of it is done";
        let mut recorded = Change::new(self.object(), why, operation);
        recorded.recovery = Recovery::Transactional;
        recorded.inverse = self.impossible().unwrap_or_else(|| self.by(None));
        changes.push(recorded);
        changes
    }

    fn cost(&self) -> BTreeMap<String, u64> {
        let rewritten = self.facts.statements.iter().filter(|one| one.class == Class::Rewrite);
        let bytes: u64 = rewritten.filter_map(|one| one.table_bytes).sum();
        if bytes == 0 { BTreeMap::new() } else { [("bytes_rewritten".to_owned(), bytes)].into() }
    }
}

/// What every change of a migration is limited by.
pub(in crate::tools) struct Limits {
    /// How long it may wait for a lock.
    pub(in crate::tools) lock_timeout: Span,
    /// How long one statement may take; `None`: the step's timeout.
    pub(in crate::tools) statement_timeout: Option<Span>,
    /// The least risk.
    pub(in crate::tools) at_least: Risk,
    /// Whether nothing that it does there is a loss.
    pub(in crate::tools) is_throw_away: bool,
}

/// What needs a person: whatever loses something or breaks programs, and locks and rewrites of tables
/// that are not small.
fn risk(one: &Judged) -> Risk {
    let is_small = one.table_bytes.is_some_and(|bytes| bytes < SMALL);
    match one.class {
        Class::Safe => Risk::Medium,
        Class::LockHeavy | Class::Rewrite if is_small => Risk::Medium,
        Class::LockHeavy | Class::Rewrite | Class::Breaking | Class::Destructive => Risk::High,
    }
}

/// SQL that was supplied undoes a migration, unless that destroys something: no SQL brings it back.
fn undo(statements: &[Judged], down: Option<&str>) -> Undo {
    let lost = statements.iter().find(|one| one.class == Class::Destructive);
    let impossible = match (down, lost) {
        (None, _) => Some("no SQL that undoes it was supplied".to_owned()),
        (Some(_), Some(lost)) => Some(format!("line {}: {}", lost.line, lost.reason)),
        (Some(_), None) => None,
    };
    Undo { sql: down.map(|text| text.trim().to_owned()), impossible }
}

/// The change that tells others which migrations were carried out.
pub(in crate::tools) fn publication(pending: &[Pending], target: &Target) -> Change {
    let versions: Vec<_> = pending.iter().map(|one| one.facts.version.as_str()).collect();
    let payload = json!({
        "project": target.project,
        "branch": target.branch,
        "project_id": target.project,
        "branch_id": target.branch,
        "database": target.database,
        "versions": versions,
    });
    lifecycle::publication("schema_migrated", None, &payload)
}

/// The change that makes the table of migrations, shown with the first set that needs it.
pub(in crate::tools) fn set_up() -> Change {
    Change {
        inverse: Inverse::Impossible {
            why: "later runs rely on what it says of earlier ones".to_owned(),
        },
        origin: Origin::Engine,
        recovery: Recovery::Repeatable,
        ..Change::new(
            "table lakeops.schema_migration",
            "a migration happens once because the database says which it has",
            Operation::sql(CREATE.body(), Vec::new()),
        )
    }
}
