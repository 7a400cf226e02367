//! Changes as data: everything that the engine needs to show, approve, carry out, find again after a
//! crash, and undo one single effect.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    ApiCall, ArchiveBatch, ArchivedRows, Digest, Ident, Risk, Severity, Span, Timestamp, Upkeep,
};

/// A value bound to a placeholder of a statement (`$1`, `$2`, …), typed as PostgreSQL sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub enum Bind {
    /// `text`
    Text(String),
    /// `bigint`
    Int(i64),
    /// `double precision`
    Float(f64),
    /// `boolean`
    Bool(bool),
    /// `timestamptz`
    Timestamp(Timestamp),
    /// `jsonb`
    Json(Value),
    /// `text[]`
    TextArray(Vec<String>),
    /// `bigint[]`
    IntArray(Vec<i64>),
    /// SQL `NULL`, sent as `text`.
    Null,
    /// A reference to a secret, sent as `text`; substituted last, by the applier.
    Secret(String),
}

/// One SQL statement with its bound values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SqlStatement {
    /// The text, with `$1`, `$2`, … where values are bound.
    pub text: String,
    /// The bound values, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binds: Vec<Bind>,
}

impl SqlStatement {
    /// A statement without bound values.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), binds: Vec::new() }
    }

    /// A statement with bound values.
    pub fn with_binds(text: impl Into<String>, binds: Vec<Bind>) -> Self {
        Self { text: text.into(), binds }
    }
}

/// A read-only query, run in a `READ ONLY` transaction or in the change's own one.
pub type Query = SqlStatement;

/// One single effect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Operation {
    /// A SQL statement on the target.
    Sql {
        /// The statement.
        statement: SqlStatement,
        /// Whether it runs inside a transaction of its own. VACUUM and `CONCURRENTLY` cannot.
        transactional: bool,
    },
    /// Several SQL statements on the target in one transaction: all of them happen, or none.
    Transaction {
        /// The statements, in order.
        statements: Vec<SqlStatement>,
    },
    /// SQL statements on a branch that is there to be thrown away, in a transaction that is always
    /// rolled back: to see what they do.
    SqlExperiment {
        /// The role that they run as; `None`: the one that connects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Ident>,
        /// Settings of the transaction, such as `app.tenant_id`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        settings: BTreeMap<String, String>,
        /// The statements, in order. One that is refused ends the experiment; that is a result, too.
        statements: Vec<SqlStatement>,
    },
    /// An HTTP request.
    Http {
        /// The method, in capitals.
        method: String,
        /// The absolute URL.
        url: String,
        /// Header fields. A value may be `secret:NAME`.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, String>,
        /// The body, when there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<Value>,
        /// The status codes that count as success.
        expect: Vec<u16>,
    },
    /// A call of the workspace's REST API.
    Api(ApiCall),
    /// A program on this machine, started without a shell.
    Command {
        /// The program.
        program: String,
        /// Its arguments.
        args: Vec<String>,
        /// A command that exits 0 when the effect is there, 1 when it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<Vec<String>>,
    },
    /// A file on this machine, written whole or removed.
    File {
        /// Its absolute path.
        path: String,
        /// What it is to hold; `None`: it is to be gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
        /// The digest of what it held when the change was proposed; `None`: it was not there. A file
        /// that holds something else by then is left alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Digest>,
    },
    /// A message to people.
    Notification {
        /// The channel: `log`, one that is configured, or `routes` for where the routes lead.
        channel: String,
        /// How bad it is.
        severity: Severity,
        /// One line.
        title: String,
        /// The rest.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
        /// By what it is known again; `None`: it is of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
        /// What routes and receivers tell it by.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        labels: BTreeMap<String, String>,
        /// Whether it says that what was told under its key is over.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resolves: bool,
    },
    /// An event for triggers and waits: a journal row, committed with the settlement.
    Event {
        /// The event's name.
        name: String,
        /// What it carries.
        payload: Value,
    },
    /// Upkeep of a table of the history.
    History(Upkeep),
    /// Rows of a table that are copied into the archive.
    Archive(ArchiveBatch),
    /// A statement in a transaction that is fed with what the archive holds of a batch.
    FromArchive(ArchivedRows),
}

impl Operation {
    /// A SQL statement that runs in a transaction.
    pub fn sql(text: impl Into<String>, binds: Vec<Bind>) -> Self {
        Self::Sql { statement: SqlStatement::with_binds(text, binds), transactional: true }
    }

    /// A SQL statement that cannot run in a transaction.
    pub fn sql_outside_transaction(text: impl Into<String>) -> Self {
        Self::Sql { statement: SqlStatement::new(text), transactional: false }
    }

    /// Whether it works on the step's database.
    pub const fn is_on_database(&self) -> bool {
        matches!(
            self,
            Self::Sql { .. }
                | Self::Transaction { .. }
                | Self::SqlExperiment { .. }
                | Self::Archive(_)
                | Self::FromArchive(_)
        )
    }

    /// Its SQL statements, in order.
    pub fn statements(&self) -> &[SqlStatement] {
        match self {
            Self::Sql { statement, .. } => std::slice::from_ref(statement),
            Self::Transaction { statements } | Self::SqlExperiment { statements, .. } => statements,
            Self::Http { .. }
            | Self::Api(_)
            | Self::Command { .. }
            | Self::History(_)
            | Self::Archive(_)
            | Self::FromArchive(_)
            | Self::File { .. }
            | Self::Notification { .. }
            | Self::Event { .. } => &[],
        }
    }

    /// The kind, as it is written in plans and reports.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sql { .. } => "sql",
            Self::Transaction { .. } => "transaction",
            Self::SqlExperiment { .. } => "sql_experiment",
            Self::Http { .. } => "http",
            Self::Api(_) => "api",
            Self::Command { .. } => "command",
            Self::File { .. } => "file",
            Self::Notification { .. } => "notification",
            Self::Event { .. } => "event",
            Self::History(_) => "history",
            Self::Archive(_) => "archive",
            Self::FromArchive(_) => "from_archive",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql { statement, .. } => f.write_str(&statement.text),
            Self::Transaction { statements } | Self::SqlExperiment { statements, .. } => {
                let texts: Vec<_> = statements.iter().map(|one| one.text.as_str()).collect();
                f.write_str(&texts.join(";\n"))
            }
            Self::Http { method, url, .. } => write!(f, "{method} {url}"),
            Self::Api(call) => call.fmt(f),
            Self::Command { program, args, .. } => {
                write!(f, "{program}")?;
                args.iter().try_for_each(|arg| write!(f, " {arg:?}"))
            }
            Self::File { path, content: Some(content), .. } => {
                write!(f, "write {path} ({} bytes)", content.len())
            }
            Self::File { path, content: None, .. } => write!(f, "remove {path}"),
            Self::Notification { channel, severity, title, .. } => {
                write!(f, "notify {channel} ({severity}): {title}")
            }
            Self::Event { name, .. } => write!(f, "publish event {name}"),
            Self::History(upkeep) => upkeep.fmt(f),
            Self::Archive(batch) => batch.fmt(f),
            Self::FromArchive(rows) => rows.fmt(f),
        }
    }
}

/// What a resume does with a change that has a durable start and no settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recovery {
    /// Exactly once: a key row is written first in the same transaction of the target.
    Transactional,
    /// Done again, harmlessly.
    Repeatable,
    /// Looks at the target, against the fingerprint taken before: applied, partial, not applied,
    /// unknown.
    Probe,
    /// Never repeated; a person settles it.
    Ask,
}

/// How a change is undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "undo", rename_all = "snake_case")]
pub enum Inverse {
    /// By this operation.
    By {
        /// What undoes it.
        operation: Operation,
        /// How its own undoing is found again after a crash.
        recovery: Recovery,
    },
    /// There is nothing to undo (VACUUM, ANALYZE).
    Unneeded,
    /// It cannot be undone; the text says why.
    Impossible {
        /// Why.
        why: String,
    },
}

/// Whether a change is being carried out or undone.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Carried out.
    #[default]
    Do,
    /// Undone.
    Undo,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Do => "do",
            Self::Undo => "undo",
        })
    }
}

/// Who put a change into its set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The tool.
    #[default]
    Tool,
    /// The engine, for its own needs on the target (the schema `lakeops`).
    Engine,
}

/// One single effect with all that is known about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it works on, for people and for caps: `public.accounts`, `session 4711`.
    pub object: String,
    /// Why it is proposed.
    pub why: String,
    /// The effect.
    pub operation: Operation,
    /// How dangerous it is.
    pub risk: Risk,
    /// What resume does when nobody knows whether it happened.
    pub recovery: Recovery,
    /// A read-only predicate (one boolean) checked immediately before; false settles it as moot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Query>,
    /// Removes its own half-done state before it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Operation>,
    /// How it is undone.
    pub inverse: Inverse,
    /// A query of one row whose values before and after go into the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Query>,
    /// How long the statement may take; `None`: the step's timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<Span>,
    /// How long it may wait for a lock; `None`: the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout: Option<Span>,
    /// Whether it stands on its own: an approved set may shrink to an ordered subset of such changes.
    #[serde(default)]
    pub independent: bool,
    /// What a cap counts it as, such as `sessions_ended: 1` or `bytes_rewritten: 8192`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cost: BTreeMap<String, u64>,
    /// Facts about it that `report` needs (row counts, sizes); not part of the digest.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub facts: Value,
    /// Who put it into the set.
    #[serde(default)]
    pub origin: Origin,
}

impl Change {
    /// A change with the given essentials: low risk, repeatable, nothing to undo.
    pub fn new(object: impl Into<String>, why: impl Into<String>, operation: Operation) -> Self {
        Self {
            object: object.into(),
            why: why.into(),
            operation,
            risk: Risk::Low,
            recovery: Recovery::Repeatable,
            guard: None,
            cleanup: None,
            inverse: Inverse::Unneeded,
            measure: None,
            statement_timeout: None,
            lock_timeout: None,
            independent: false,
            cost: BTreeMap::new(),
            facts: Value::Null,
            origin: Origin::Tool,
        }
    }

    /// What its digest covers: kind, target, text, binds, risk, guard, clean-up and inverse; not why,
    /// measurements or times.
    fn identity(&self) -> Value {
        serde_json::json!({
            "object": self.object,
            "operation": self.operation,
            "risk": self.risk,
            "recovery": self.recovery,
            "guard": self.guard,
            "cleanup": self.cleanup,
            "inverse": self.inverse,
        })
    }

    /// The digest of this one change.
    pub fn digest(&self) -> Digest {
        Digest::of_value(&self.identity())
    }
}

/// An ordered list of changes and the digest that approvals bind to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeSet {
    /// SHA-256 over what the digests of its changes cover, in order.
    pub digest: Digest,
    /// The changes, in the order in which they are carried out.
    pub changes: Vec<Change>,
}

impl ChangeSet {
    /// Makes a set of changes.
    pub fn new(changes: Vec<Change>) -> Self {
        let identities = changes.iter().map(Change::identity).collect();
        let digest = Digest::of_value(&Value::Array(identities));
        Self { digest, changes }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The highest risk of its changes.
    pub fn risk(&self) -> Risk {
        self.changes.iter().map(|change| change.risk).max().unwrap_or_default()
    }

    /// Whether this set is `approved` itself, or an ordered subset of it whose changes all are
    /// independent. What the engine makes for its own needs may be there already.
    pub fn is_covered_by(&self, approved: &Self) -> bool {
        if self.digest == approved.digest {
            return true;
        }
        let (engine, own) = (self.known_by(true), self.known_by(false));
        let (approved_engine, approved_own) = (approved.known_by(true), approved.known_by(false));
        if !engine.iter().all(|change| approved_engine.contains(change)) {
            return false;
        }
        let mut rest = approved_own.iter();
        own == approved_own
            || own.iter().all(|change| change.0 && rest.any(|known| known == change))
    }

    /// The engine's own changes or the others: whether each is independent, and its digest.
    fn known_by(&self, is_engine: bool) -> Vec<(bool, Digest)> {
        let wanted = |change: &&Change| (change.origin == Origin::Engine) == is_engine;
        let known = |change: &Change| (change.independent, change.digest());
        self.changes.iter().filter(wanted).map(known).collect()
    }
}

/// What was seen of a change that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Rows touched, as the server reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What it returned: the rows of a `RETURNING`, the body of a reply, the output of a command.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
    /// The measure query's row before.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub before: Value,
    /// The measure query's row after.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub after: Value,
    /// How long it took; `None` when a recovery found it done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Whether a recovery found it done, instead of doing it now.
    #[serde(default)]
    pub recovered: bool,
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "as", rename_all = "snake_case")]
pub enum Settlement {
    /// It happened.
    Applied {
        /// What was seen of it.
        receipt: Receipt,
    },
    /// Its guard no longer held; nothing was done.
    Moot,
    /// A person said that it did not happen and is not to be done.
    Abandoned,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Change {
        let mut change = Change::new("t", "because", Operation::sql(text, vec![Bind::Int(1)]));
        change.independent = true;
        change
    }

    #[test]
    fn digest_covers_what_is_done_and_not_why() {
        let set = ChangeSet::new(vec![change("select 1")]);
        let mut other = change("select 1");
        other.why = "another reason".into();
        other.facts = serde_json::json!({"rows": 7});
        assert_eq!(ChangeSet::new(vec![other]).digest, set.digest);
        let mut riskier = change("select 1");
        riskier.risk = Risk::High;
        assert_ne!(ChangeSet::new(vec![riskier]).digest, set.digest);
        let mut guarded = change("select 1");
        guarded.guard = Some(Query::new("select true"));
        assert_ne!(ChangeSet::new(vec![guarded]).digest, set.digest);
    }

    #[test]
    fn an_ordered_subset_of_independent_changes_is_covered() {
        let (a, b, c) = (change("a"), change("b"), change("c"));
        let all = ChangeSet::new(vec![a.clone(), b.clone(), c.clone()]);
        assert!(ChangeSet::new(vec![a.clone(), c.clone()]).is_covered_by(&all));
        assert!(!ChangeSet::new(vec![c.clone(), a.clone()]).is_covered_by(&all));
        assert!(!ChangeSet::new(vec![change("d")]).is_covered_by(&all));
        let mut bound = b;
        bound.independent = false;
        let mixed = ChangeSet::new(vec![a.clone(), bound.clone()]);
        assert!(!ChangeSet::new(vec![bound]).is_covered_by(&mixed));
        assert!(ChangeSet::new(vec![a]).is_covered_by(&mixed));
    }

    #[test]
    fn operations_survive_json() {
        let set = ChangeSet::new(vec![change("select $1")]);
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<ChangeSet>(&json).unwrap(), set);
    }
}
