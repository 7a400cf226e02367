//! What a statement does to those who work with the database while it runs and afterwards, judged by its
//! text alone. PURE.
//!
//! The facts about locks and rewrites are those of PostgreSQL 17's manual: `ALTER TABLE`, section Notes,
//! and chapter 13.3, Explicit Locking. What nobody has shown to be harmless counts as destructive.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squawk_syntax::ast::{self, AstNode, Stmt};

use super::reading::table_name;
use crate::postgres::scan::tokens;
use crate::tools::analysis::statement::read_statement;

/// What a statement does, from harmless to final.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub(in crate::tools) enum Class {
    /// It keeps nobody waiting for longer than a moment, and loses nothing.
    Safe,
    /// It holds a lock that keeps others waiting for as long as it works.
    LockHeavy,
    /// It writes the whole table again, under a lock that stops everybody.
    Rewrite,
    /// Nothing is lost, but programs that worked can fail.
    Breaking,
    /// It loses data, or protection that others rely on.
    Destructive,
}

impl Class {
    /// As people read it.
    pub(in crate::tools) const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::LockHeavy => "heavy lock",
            Self::Rewrite => "rewrite",
            Self::Breaking => "breaking",
            Self::Destructive => "destructive",
        }
    }
}

/// A class with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tools) struct Verdict {
    /// The class.
    pub(in crate::tools) class: Class,
    /// Why it is of that class.
    pub(in crate::tools) reason: String,
}

const fn of(class: Class, reason: &'static str) -> (Class, &'static str) {
    (class, reason)
}

const BRIEF: (Class, &str) = of(Class::Safe, "its lock is held for a moment");
const ADDS: (Class, &str) = of(Class::Safe, "it adds something that nobody uses yet");
const SCANS: (Class, &str) = of(
    Class::LockHeavy,
    "it reads the whole table under a lock; add it NOT VALID, and VALIDATE it in a later file",
);
const INDEXES: (Class, &str) = of(
    Class::LockHeavy,
    "it builds an index under a lock; build it CONCURRENTLY, then USING INDEX",
);
const RENAMES: (Class, &str) = of(Class::Breaking, "programs that use the old name fail");
const OPAQUE: (Class, &str) =
    of(Class::Destructive, "its text does not say what it does, so nobody has shown it harmless");

/// Judges one statement. `made` are the tables that earlier statements of the same file made: nobody
/// else sees them yet.
pub(super) fn classify(statement: &Stmt, text: &str, made: &BTreeSet<String>) -> Verdict {
    let (class, reason) = judge(statement, text, made);
    Verdict { class, reason: reason.to_owned() }
}

fn judge(statement: &Stmt, text: &str, made: &BTreeSet<String>) -> (Class, &'static str) {
    let is_made = |name: Option<ast::TableRelationName>| {
        table_name(name.as_ref()).is_some_and(|name| made.contains(&name))
    };
    match statement {
        Stmt::AlterTable(alter) if is_made(alter.table_relation_name()) => {
            of(Class::Safe, "its table is made in the same file")
        }
        Stmt::AlterTable(alter) if alter.all_in_tablespace().is_some() => {
            of(Class::Rewrite, "it copies every table of a tablespace")
        }
        Stmt::AlterTable(alter) => worst(alter.actions().map(|action| alteration(&action))),
        Stmt::CreateIndex(index) if index.concurrently_token().is_some() => {
            of(Class::Safe, "it lets reads and writes go on")
        }
        Stmt::CreateIndex(index) if is_made(index.table_relation_name()) => {
            of(Class::Safe, "its table is made in the same file")
        }
        Stmt::CreateIndex(_) => {
            of(Class::LockHeavy, "it blocks writes for as long as it builds; use CONCURRENTLY")
        }
        Stmt::DropIndex(index) if index.concurrently_token().is_some() => {
            of(Class::Safe, "it lets reads and writes go on; queries that used it become slower")
        }
        Stmt::DropIndex(_) => {
            of(Class::LockHeavy, "it stops everybody on the table; use CONCURRENTLY")
        }
        Stmt::Reindex(_) | Stmt::Refresh(_) if says(text, "concurrently") => {
            of(Class::Safe, "it lets reads and writes go on")
        }
        Stmt::Reindex(_) => of(Class::LockHeavy, "it blocks writes; use CONCURRENTLY"),
        Stmt::Refresh(_) => of(Class::LockHeavy, "it stops everybody who reads the view"),
        Stmt::Lock(_) => of(Class::LockHeavy, "it holds its lock to the end of the file"),
        Stmt::Vacuum(_) if says(text, "full") => {
            of(Class::Rewrite, "it rewrites the table under an exclusive lock")
        }
        Stmt::Cluster(_) | Stmt::Repack(_) => {
            of(Class::Rewrite, "it rewrites the table under an exclusive lock")
        }
        _ => data(statement, text)
            .or_else(|| removal(statement, text))
            .or_else(|| other_alteration(statement))
            .or_else(|| harmless(statement))
            .unwrap_or(OPAQUE),
    }
}

fn worst(verdicts: impl Iterator<Item = (Class, &'static str)>) -> (Class, &'static str) {
    verdicts.max_by_key(|(class, _)| *class).unwrap_or(BRIEF)
}

/// Whether a keyword stands in a statement, outside of names, texts and comments.
fn says(text: &str, keyword: &str) -> bool {
    tokens(text).iter().any(|token| token.is(keyword))
}

fn alteration(action: &ast::AlterTableAction) -> (Class, &'static str) {
    use ast::AlterTableAction as Action;
    match action {
        Action::AddColumn(column) => new_column(column),
        Action::AddConstraint(add) => add.constraint().map_or(OPAQUE, |one| new_constraint(&one)),
        Action::AlterColumn(column) => column.option().map_or(OPAQUE, |one| column_option(&one)),
        Action::DropColumn(_) => of(Class::Destructive, "it drops a column with its data"),
        Action::DropConstraint(_) => {
            of(Class::Destructive, "it drops a constraint; rows that break it can come in")
        }
        Action::AttachPartition(_) => of(
            Class::LockHeavy,
            "it reads the whole partition, unless a valid CHECK already proves its bounds",
        ),
        Action::DetachPartition(_) => of(Class::LockHeavy, "it stops everybody on the table"),
        Action::DisableRls(_) | Action::NoForceRls(_) => {
            of(Class::Destructive, "it ends row level security: rows of others become visible")
        }
        Action::EnableRls(_) | Action::ForceRls(_) => {
            of(Class::Breaking, "without a policy nobody sees a row any more")
        }
        Action::DisableTrigger(_) | Action::DisableRule(_) => {
            of(Class::Destructive, "rows that are written meanwhile escape it")
        }
        Action::RenameColumn(_) | Action::TableRenameTo(_) | Action::SetSchema(_) => RENAMES,
        Action::SetUnlogged(_) => of(Class::Destructive, "a crash empties an unlogged table"),
        Action::SetLogged(_) | Action::SetTablespace(_) | Action::SetAccessMethod(_) => {
            of(Class::Rewrite, "it rewrites the table under an exclusive lock")
        }
        Action::MergePartitions(_) | Action::SplitPartition(_) => {
            of(Class::Rewrite, "it moves the rows of partitions under an exclusive lock")
        }
        Action::ValidateConstraint(_) => {
            of(Class::Safe, "it reads the table and lets reads and writes go on")
        }
        Action::AlterConstraint(_)
        | Action::AlterOptionList(_)
        | Action::ClusterOn(_)
        | Action::EnableAlwaysRule(_)
        | Action::EnableAlwaysTrigger(_)
        | Action::EnableReplicaRule(_)
        | Action::EnableReplicaTrigger(_)
        | Action::EnableRule(_)
        | Action::EnableTrigger(_)
        | Action::InheritTable(_)
        | Action::NoInheritTable(_)
        | Action::NotOf(_)
        | Action::OfType(_)
        | Action::OptionItemList(_)
        | Action::OwnerTo(_)
        | Action::RenameConstraint(_)
        | Action::ReplicaIdentity(_)
        | Action::ResetOptions(_)
        | Action::SetOptions(_)
        | Action::SetWithoutCluster(_)
        | Action::SetWithoutOids(_) => BRIEF,
    }
}

fn new_column(column: &ast::AddColumn) -> (Class, &'static str) {
    let kind = column.ty().map(|kind| kind.syntax().text().to_string().to_lowercase());
    if kind.is_some_and(|kind| kind.ends_with("serial") || kind.ends_with("serial\"")) {
        return of(Class::Rewrite, "it numbers every row, which rewrites the table");
    }
    let constraints: Vec<_> = column.constraints().collect();
    let default = constraints.iter().find_map(|one| match one {
        ast::Constraint::DefaultConstraint(default) => default.expr(),
        _ => None,
    });
    let parts = constraints.iter().map(|one| match one {
        ast::Constraint::DefaultConstraint(default) => match default.expr() {
            Some(value) if is_volatile(value.syntax()) => of(
                Class::Rewrite,
                "its default is worked out for every row, which rewrites the table",
            ),
            _ => of(Class::Safe, "it adds a column without touching rows"),
        },
        ast::Constraint::GeneratedConstraint(_) => {
            of(Class::Rewrite, "it works out a value for every row, which rewrites the table")
        }
        ast::Constraint::NotNullConstraint(_) if default.is_none() => {
            of(Class::LockHeavy, "it fails as soon as the table has a row: there is no default")
        }
        // Without a default every value is null, which needs no look at the other table.
        ast::Constraint::ReferencesConstraint(_) if default.is_none() => BRIEF,
        ast::Constraint::NotNullConstraint(_) | ast::Constraint::NullConstraint(_) => BRIEF,
        other => new_constraint(other),
    });
    let plain = of(Class::Safe, "it adds a column without touching rows");
    worst(std::iter::once(plain).chain(parts))
}

fn new_constraint(constraint: &ast::Constraint) -> (Class, &'static str) {
    let is_unchecked = says(&constraint.syntax().text().to_string(), "valid");
    let existing = of(Class::Safe, "it takes over an index that is there");
    match constraint {
        ast::Constraint::CheckConstraint(_)
        | ast::Constraint::ForeignKeyConstraint(_)
        | ast::Constraint::ReferencesConstraint(_)
        | ast::Constraint::NotNullConstraint(_) => {
            if is_unchecked {
                of(Class::Safe, "existing rows are not checked")
            } else {
                SCANS
            }
        }
        ast::Constraint::UniqueConstraint(unique) if unique.using_index().is_some() => existing,
        ast::Constraint::PrimaryKeyConstraint(key) if key.using_index().is_some() => existing,
        ast::Constraint::UniqueConstraint(_) | ast::Constraint::PrimaryKeyConstraint(_) => INDEXES,
        ast::Constraint::ExcludeConstraint(_) => of(
            Class::LockHeavy,
            "it builds an index under a lock, and cannot be built CONCURRENTLY",
        ),
        ast::Constraint::DefaultConstraint(_)
        | ast::Constraint::GeneratedConstraint(_)
        | ast::Constraint::NullConstraint(_) => BRIEF,
    }
}

fn column_option(option: &ast::AlterColumnOption) -> (Class, &'static str) {
    use ast::AlterColumnOption as Option;
    match option {
        Option::SetType(_) => of(
            Class::Rewrite,
            "another type can rewrite the table and its indexes under an exclusive lock",
        ),
        Option::SetExpression(_) => {
            of(Class::Rewrite, "it works out a value for every row, which rewrites the table")
        }
        Option::SetNotNull(_) => of(
            Class::LockHeavy,
            "it reads the whole table under a lock, unless a valid CHECK already proves it",
        ),
        Option::DropIdentity(_) => of(Class::Destructive, "it drops the sequence of the column"),
        Option::DropExpression(_) | Option::DropDefault(_) => {
            of(Class::Breaking, "programs that rely on the value being filled in fail")
        }
        Option::AddGenerated(_)
        | Option::DropNotNull(_)
        | Option::Inherit(_)
        | Option::NoInherit(_)
        | Option::ResetOptions(_)
        | Option::Restart(_)
        | Option::SetCompression(_)
        | Option::SetDefault(_)
        | Option::SetGenerated(_)
        | Option::SetGeneratedOptions(_)
        | Option::SetOptions(_)
        | Option::SetOptionsList(_)
        | Option::SetSequenceOption(_)
        | Option::SetStatistics(_)
        | Option::SetStorage(_) => BRIEF,
    }
}

/// Functions whose value is the same for all rows of one statement.
const STABLE: [&str; 9] = [
    "now",
    "pg_catalog.now",
    "transaction_timestamp",
    "statement_timestamp",
    "current_setting",
    "to_timestamp",
    "make_interval",
    "jsonb_build_object",
    "jsonb_build_array",
];

/// Functions that a query may call in a migration without anybody wondering.
const KNOWN_CALLS: [&str; 5] =
    ["setval", "pg_catalog.setval", "set_config", "pg_catalog.set_config", "now"];

/// The functions that are called somewhere in it, in lower case.
fn calls(node: &squawk_syntax::SyntaxNode) -> Vec<String> {
    let calls = node.descendants().filter_map(ast::CallExpr::cast);
    let name = |call: ast::CallExpr| {
        let text = call.syntax().text().to_string().to_lowercase();
        text.split('(').next().unwrap_or_default().trim().to_owned()
    };
    calls.map(name).collect()
}

fn is_volatile(value: &squawk_syntax::SyntaxNode) -> bool {
    calls(value).iter().any(|name| !STABLE.contains(&name.as_str()))
}

/// Statements about rows.
fn data(statement: &Stmt, text: &str) -> Option<(Class, &'static str)> {
    let reason = || read_statement(text).ok().and_then(|facts| facts.reason);
    let nested = |own: (Class, &'static str)| match reason() {
        Some(reason) => of(Class::Destructive, reason),
        None => own,
    };
    Some(match statement {
        Stmt::Truncate(_) => of(Class::Destructive, "it removes every row"),
        Stmt::Delete(_) => nested(of(Class::Destructive, "the rows that it deletes are gone")),
        Stmt::Update(_) | Stmt::Merge(_) => nested(of(
            Class::LockHeavy,
            "it locks the rows that it changes to the end of the file, and overwrites what they held",
        )),
        Stmt::Insert(_) | Stmt::Copy(_) => nested(of(Class::Safe, "it adds rows")),
        Stmt::Select(_)
        | Stmt::CompoundSelect(_)
        | Stmt::ParenSelect(_)
        | Stmt::Values(_)
        | Stmt::Table(_) => {
            let known = |name: &String| KNOWN_CALLS.contains(&name.as_str());
            if calls(syntax(statement)).iter().all(known) {
                nested(of(Class::Safe, "it reads"))
            } else {
                OPAQUE
            }
        }
        Stmt::Do(_) | Stmt::Call(_) | Stmt::Explain(_) => OPAQUE,
        _ => return None,
    })
}

/// Statements that drop something.
fn removal(statement: &Stmt, text: &str) -> Option<(Class, &'static str)> {
    let first = tokens(text);
    if !first.first().is_some_and(|token| token.is("drop")) {
        return None;
    }
    if says(text, "cascade") {
        return Some(of(Class::Destructive, "it drops whatever depends on it, unseen"));
    }
    Some(match statement {
        Stmt::DropView(_)
        | Stmt::DropFunction(_)
        | Stmt::DropProcedure(_)
        | Stmt::DropRoutine(_)
        | Stmt::DropAggregate(_)
        | Stmt::DropCast(_)
        | Stmt::DropOperator(_)
        | Stmt::DropOperatorClass(_)
        | Stmt::DropOperatorFamily(_)
        | Stmt::DropConversion(_)
        | Stmt::DropCollation(_)
        | Stmt::DropStatistics(_) => {
            of(Class::Breaking, "programs that use it fail; it holds no data")
        }
        Stmt::DropTrigger(_) | Stmt::DropRule(_) => {
            of(Class::Destructive, "rows that are written from now on escape it")
        }
        Stmt::DropPolicy(_) => {
            of(Class::Destructive, "rows that it kept from others, or gave to them, change hands")
        }
        Stmt::DropMaterializedView(_) => {
            of(Class::Breaking, "programs that use it fail; its data can be worked out again")
        }
        _ => of(Class::Destructive, "it drops an object for good, with what it holds"),
    })
}

/// What alters something that is no table.
fn other_alteration(statement: &Stmt) -> Option<(Class, &'static str)> {
    let node = syntax(statement);
    let kinds = || node.descendants().map(|one| format!("{:?}", one.kind()));
    Some(match statement {
        Stmt::AlterDomain(alter) => match alter.action() {
            Some(
                ast::AlterDomainAction::AddConstraint(_) | ast::AlterDomainAction::SetNotNull(_),
            ) if !says(&node.text().to_string(), "valid") => {
                of(Class::LockHeavy, "it reads every table that has a column of the domain")
            }
            Some(
                ast::AlterDomainAction::DomainRenameTo(_) | ast::AlterDomainAction::SetSchema(_),
            ) => RENAMES,
            Some(ast::AlterDomainAction::DropConstraint(_)) => {
                of(Class::Destructive, "it drops a constraint; rows that break it can come in")
            }
            _ => BRIEF,
        },
        Stmt::AlterType(alter) => match alter.action() {
            Some(ast::AlterTypeAction::AddValue(_)) => {
                of(Class::Safe, "it adds a value, which no statement removes again")
            }
            Some(ast::AlterTypeAction::OwnerTo(_) | ast::AlterTypeAction::SetOptions(_)) => BRIEF,
            _ => of(Class::Breaking, "programs that use the old names or attributes fail"),
        },
        Stmt::AlterExtension(_) => {
            of(Class::Breaking, "what the extension's own script does is not in the text")
        }
        Stmt::AlterPolicy(_) => {
            of(Class::Destructive, "rows that it kept from others, or gave to them, change hands")
        }
        Stmt::Revoke(_) => of(Class::Breaking, "programs of those who lose the privilege fail"),
        _ if kinds().any(|kind| kind.ends_with("RENAME_TO") || kind == "SET_SCHEMA") => RENAMES,
        _ => return None,
    })
}

/// What adds something, or changes what nobody waits for.
fn harmless(statement: &Stmt) -> Option<(Class, &'static str)> {
    let kind = format!("{:?}", syntax(statement).kind());
    Some(match statement {
        Stmt::CreateTrigger(_) | Stmt::CreateRule(_) | Stmt::CreatePolicy(_) => BRIEF,
        Stmt::SelectInto(_) => ADDS,
        _ if kind.starts_with("CREATE_") => ADDS,
        _ if kind.starts_with("ALTER_") => BRIEF,
        Stmt::CommentOn(_)
        | Stmt::SecurityLabel(_)
        | Stmt::Grant(_)
        | Stmt::Reassign(_)
        | Stmt::Notify(_)
        | Stmt::Set(_)
        | Stmt::Reset(_)
        | Stmt::SetRole(_)
        | Stmt::ResetRole(_)
        | Stmt::SetConstraints(_)
        | Stmt::Vacuum(_)
        | Stmt::Analyze(_) => BRIEF,
        _ => return None,
    })
}

fn syntax(statement: &Stmt) -> &squawk_syntax::SyntaxNode {
    statement.syntax()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::migration::reading::read_now;

    fn class_of(text: &str) -> Class {
        let read = read_now("test", text).unwrap_or_else(|failure| panic!("{text}: {failure}"));
        read.statements.iter().map(|one| one.verdict.class).max().unwrap()
    }

    #[test]
    fn statements_are_classified() {
        let table = [
            (Class::Safe, "create table t (id bigint primary key, a text unique)"),
            (Class::Safe, "alter table t add column a text"),
            (Class::Safe, "alter table t add column a text default 'x' not null"),
            (Class::Safe, "alter table t add column at timestamptz default now()"),
            (Class::Safe, "alter table t add column o bigint references other (id)"),
            (Class::Safe, "alter table t add constraint c check (a > 0) not valid"),
            (Class::Safe, "alter table t add constraint f foreign key (a) references u not valid"),
            (Class::Safe, "alter table t validate constraint c"),
            (Class::Safe, "alter table t add constraint u unique using index i"),
            (Class::Safe, "create index concurrently i on t (a)"),
            (Class::Safe, "drop index concurrently i"),
            (Class::Safe, "create or replace view v as select 1"),
            (Class::Safe, "create function f() returns int language sql as 'select 1'"),
            (Class::Safe, "insert into t values (1)"),
            (Class::Safe, "select setval('s', 10)"),
            (Class::Safe, "alter type mood add value 'glad'"),
            (Class::Safe, "grant select on t to reader"),
            (Class::Safe, "comment on table t is 'drop table t'"),
            (Class::LockHeavy, "create index i on t (a)"),
            (Class::LockHeavy, "drop index i"),
            (Class::LockHeavy, "alter table t alter column a set not null"),
            (Class::LockHeavy, "alter table t add column a int not null"),
            (Class::LockHeavy, "alter table t add column a int check (a > 0)"),
            (Class::LockHeavy, "alter table t add constraint c check (a > 0)"),
            (Class::LockHeavy, "alter table t add unique (a)"),
            (Class::LockHeavy, "alter table t add foreign key (a) references u (b)"),
            (Class::LockHeavy, "update t set a = 1 where a is null"),
            (Class::LockHeavy, "reindex table t"),
            (Class::LockHeavy, "lock table t"),
            (Class::Rewrite, "alter table t alter column a type bigint"),
            (Class::Rewrite, "alter table t add column u uuid default gen_random_uuid()"),
            (Class::Rewrite, "alter table t add column n bigserial"),
            (Class::Rewrite, "alter table t add column n bigint generated always as identity"),
            (Class::Rewrite, "alter table t add column d int generated always as (a * 2) stored"),
            (Class::Rewrite, "alter table t set logged"),
            (Class::Rewrite, "cluster t using i"),
            (Class::Breaking, "alter table t rename column a to b"),
            (Class::Breaking, "alter table t rename to u"),
            (Class::Breaking, "alter view v rename to w"),
            (Class::Breaking, "alter function f() set schema s"),
            (Class::Breaking, "drop view v"),
            (Class::Breaking, "drop function f()"),
            (Class::Breaking, "revoke select on t from reader"),
            (Class::Destructive, "drop table t"),
            (Class::Destructive, "drop view v cascade"),
            (Class::Destructive, "drop schema s cascade"),
            (Class::Destructive, "drop type mood"),
            (Class::Destructive, "drop policy p on t"),
            (Class::Destructive, "alter table t drop column a"),
            (Class::Destructive, "alter table t add column b int, drop column a"),
            (Class::Destructive, "alter table t disable row level security"),
            (Class::Destructive, "alter table t set unlogged"),
            (Class::Destructive, "truncate t"),
            (Class::Destructive, "delete from t where a = 1"),
            (Class::Destructive, "update t set a = 1"),
            (Class::Destructive, "with gone as (delete from t returning a) select a from gone"),
            (Class::Destructive, "do $$ begin perform 1; end $$"),
            (Class::Destructive, "call p()"),
            (Class::Destructive, "select frobnicate()"),
        ];
        for (class, text) in table {
            assert_eq!(class_of(text), class, "{text}");
        }
    }

    #[test]
    fn what_the_same_file_made_keeps_nobody_waiting() {
        let made = "create table public.t (a int); create index i on public.t (a); \
                    alter table \"public\".T alter column a set not null;";
        assert_eq!(class_of(made), Class::Safe);
        let other = "create table t (a int); create index i on u (a);";
        assert_eq!(class_of(other), Class::LockHeavy);
    }
}
