//! A change set as people read it: like a diff, with everything that an approval binds to. PURE.

use std::fmt::Write as _;

use serde_json::Value;

use super::style::{Style, Tone, count};
use crate::kernel::upkeep::Work;
use crate::kernel::{
    ApiCall, ApiState, ApiVerb, Bind, Change, ChangeSet, Feed, Inverse, Operation, Recovery, Risk,
    SqlStatement,
};

/// The whole set.
pub fn change_set(style: Style, set: &ChangeSet) -> String {
    let mut text = String::new();
    if set.is_empty() {
        return format!("{}\n", style.paint(Tone::Faint, "nothing to change"));
    }
    text.push_str(&list(style, set));
    text.push_str(&summary(style, set));
    text
}

/// The changes of a set alone.
pub fn list(style: Style, set: &ChangeSet) -> String {
    let indexed = set.changes.iter().enumerate();
    indexed.map(|(index, change)| one(style, index, change)).collect()
}

/// What a set comes to, with its digest.
pub fn summary(style: Style, set: &ChangeSet) -> String {
    let changes = count(set.changes.len(), "change");
    let summary = format!("{changes}, {} risk, digest {}", set.risk(), set.digest);
    format!("{}\n", style.paint(Tone::Faint, &summary))
}

/// One change, with its place in the set.
fn one(style: Style, index: usize, change: &Change) -> String {
    let mut text = String::new();
    let (sign, tone) = sign(&change.operation);
    let head = format!("{sign} {index}  {}", change.object);
    let risk = style.paint(risk_tone(change.risk), &format!("{} risk", change.risk));
    let _ = writeln!(text, "{}  [{risk}]", style.paint(tone, &head));
    operation(&mut text, style, &change.operation);
    line(&mut text, style, "why", &change.why);
    if let Some(guard) = &change.guard {
        statement_line(&mut text, style, "guard", guard);
    }
    if let Some(cleanup) = &change.cleanup {
        line(&mut text, style, "cleanup", &short(cleanup));
    }
    line(&mut text, style, "undo", &undo(&change.inverse));
    line(&mut text, style, "crash", recovery(change.recovery));
    for (name, amount) in &change.cost {
        line(&mut text, style, "cost", &format!("{name}: {amount}"));
    }
    line(&mut text, style, "digest", change.digest().short());
    text.push('\n');
    text
}

fn operation(text: &mut String, style: Style, operation: &Operation) {
    match operation {
        Operation::Sql { statement, transactional } => {
            block(text, style, &statement.text);
            binds(text, style, statement);
            if !transactional {
                line(text, style, "note", "runs outside a transaction");
            }
        }
        Operation::Transaction { statements } => {
            for statement in statements {
                block(text, style, &statement.text);
                binds(text, style, statement);
            }
            line(text, style, "note", "all of it in one transaction, or none");
        }
        Operation::SqlExperiment { role, settings, statements } => {
            for statement in statements {
                block(text, style, &statement.text);
                binds(text, style, statement);
            }
            if let Some(role) = role {
                line(text, style, "role", role.as_str());
            }
            for (name, value) in settings {
                line(text, style, "setting", &format!("{name} = {value}"));
            }
            line(text, style, "note", "an experiment: always rolled back, on a throw-away branch");
        }
        Operation::Http { method, url, headers, body, expect } => {
            block(text, style, &format!("{method} {url}"));
            for (name, value) in headers {
                line(text, style, "header", &format!("{name}: {value}"));
            }
            if let Some(body) = body {
                line(text, style, "body", &body.to_string());
            }
            let codes: Vec<String> = expect.iter().map(ToString::to_string).collect();
            line(text, style, "expect", &codes.join(", "));
        }
        Operation::Api(call) => api(text, style, call),
        Operation::FromArchive(rows) => {
            block(text, style, &operation.to_string());
            binds(text, style, &rows.statement);
        }
        Operation::Command { .. } | Operation::History(_) | Operation::Archive(_) => {
            block(text, style, &operation.to_string());
        }
        Operation::File { content, .. } => {
            block(text, style, &operation.to_string());
            for part in content.iter().flat_map(|content| content.lines()) {
                line(text, style, "|", part);
            }
        }
        Operation::Notification { body, .. } => {
            block(text, style, &operation.to_string());
            if !body.is_empty() {
                line(text, style, "body", body);
            }
        }
        Operation::Event { payload, .. } => {
            block(text, style, &operation.to_string());
            if !payload.is_null() {
                line(text, style, "payload", &payload.to_string());
            }
        }
    }
}

fn api(text: &mut String, style: Style, call: &ApiCall) {
    block(text, style, &ApiCall { body: None, ..call.clone() }.to_string());
    if let Some(body) = &call.body {
        line(text, style, "body", &body.to_string());
    }
    if let Some(state) = &call.only_if {
        line(text, style, "only if", &state.to_string());
    }
    if call.proof != ApiState::Unseen {
        line(text, style, "proof", &call.proof.to_string());
    }
}

fn block(text: &mut String, style: Style, body: &str) {
    for part in body.trim_end().lines() {
        let _ = writeln!(text, "     {}", style.paint(Tone::Strong, part));
    }
}

fn line(text: &mut String, style: Style, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    let mut parts = value.trim_end().lines();
    let first = parts.next().unwrap_or_default();
    let _ = writeln!(text, "     {} {first}", style.paint(Tone::Faint, &format!("{name:<7}")));
    for part in parts {
        let _ = writeln!(text, "             {part}");
    }
}

fn statement_line(text: &mut String, style: Style, name: &str, statement: &SqlStatement) {
    line(text, style, name, &statement.text);
    for (index, bind) in statement.binds.iter().enumerate() {
        let _ = writeln!(text, "             ${} = {}", index + 1, value(bind));
    }
}

fn binds(text: &mut String, style: Style, statement: &SqlStatement) {
    for (index, bind) in statement.binds.iter().enumerate() {
        let bound = format!("${} = {}", index + 1, value(bind));
        let _ = writeln!(text, "     {}", style.paint(Tone::Faint, &bound));
    }
}

/// A bound value as it would stand in a statement.
pub fn value(bind: &Bind) -> String {
    match bind {
        Bind::Text(text) => quoted(text),
        Bind::Int(number) => number.to_string(),
        Bind::Float(number) => number.to_string(),
        Bind::Bool(flag) => flag.to_string(),
        Bind::Timestamp(at) => quoted(&at.to_string()),
        Bind::Json(json) => quoted(&json.to_string()),
        Bind::TextArray(items) => {
            format!("{{{}}}", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
        }
        Bind::IntArray(items) => Value::from(items.clone()).to_string(),
        Bind::Null => "null".to_owned(),
        Bind::Secret(name) => format!("(secret `{name}`)"),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn short(operation: &Operation) -> String {
    let statements = operation.statements();
    if statements.is_empty() {
        return operation.to_string();
    }
    let texts: Vec<_> = statements.iter().map(short_statement).collect();
    texts.join(";\n")
}

fn short_statement(statement: &SqlStatement) -> String {
    let mut text = statement.text.clone();
    for (index, bind) in statement.binds.iter().enumerate() {
        let _ = write!(text, "\n${} = {}", index + 1, value(bind));
    }
    text
}

fn undo(inverse: &Inverse) -> String {
    match inverse {
        Inverse::By { operation, .. } => short(operation),
        Inverse::Unneeded => "nothing to undo".to_owned(),
        Inverse::Impossible { why } => format!("cannot be undone: {why}"),
    }
}

const fn recovery(recovery: Recovery) -> &'static str {
    match recovery {
        Recovery::Transactional => "exactly once: its key is written in the same transaction",
        Recovery::Repeatable => "done again, harmlessly",
        Recovery::Probe => "looked at, against what was seen before",
        Recovery::Ask => "never repeated; a person settles it",
    }
}

const fn risk_tone(risk: Risk) -> Tone {
    match risk {
        Risk::Low => Tone::Good,
        Risk::Medium => Tone::Warn,
        Risk::High => Tone::Bad,
    }
}

/// The statements of a migration without its record, which says nothing of what it does.
pub(super) fn without_record(operation: &str) -> &str {
    let begins = |start| operation.starts_with(start);
    match operation.split_once(";\n") {
        Some((_, own)) if begins("insert into lakeops.") || begins("delete from lakeops.") => own,
        _ => operation,
    }
}

/// Whether a statement makes something, and whether it ends or removes something.
fn sign_of(statement: &str) -> (bool, bool) {
    let first = statement.split_whitespace().find(|word| !word.starts_with("--"));
    let has = |text| statement.contains(text);
    match first.unwrap_or_default() {
        "create" | "insert" | "grant" => (true, false),
        "drop" | "delete" | "truncate" | "revoke" => (false, true),
        "alter" => (has(" add "), has(" drop ")),
        _ => (false, has("pg_terminate_backend") || has("pg_cancel_backend")),
    }
}

/// `+` for what makes something, `-` for what ends or removes something, `~` for the rest.
fn sign(operation: &Operation) -> (char, Tone) {
    let (makes, removes) = match operation {
        Operation::FromArchive(rows) => match rows.feed {
            Feed::Keys { .. } => (false, true),
            Feed::Rows { .. } => (true, false),
        },
        Operation::Sql { .. } | Operation::Transaction { .. } => {
            let text = operation.to_string().to_lowercase();
            let statements = without_record(&text).split(";\n");
            let (makes, removes): (Vec<bool>, Vec<bool>) = statements.map(sign_of).unzip();
            (makes.contains(&true), removes.contains(&true))
        }
        Operation::Http { method, .. } => (method == "POST", method == "DELETE"),
        Operation::Api(call) => (call.verb == ApiVerb::Post, call.verb == ApiVerb::Delete),
        Operation::Command { .. } | Operation::SqlExperiment { .. } => (false, false),
        Operation::History(upkeep) => (false, matches!(upkeep.work, Work::Expire { .. })),
        Operation::File { content, before, .. } => (before.is_none(), content.is_none()),
        Operation::Notification { .. } | Operation::Event { .. } | Operation::Archive(_) => {
            (true, false)
        }
    };
    match (makes, removes) {
        (_, true) => ('-', Tone::Bad),
        (true, false) => ('+', Tone::Good),
        (false, false) => ('~', Tone::Warn),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Query;

    #[test]
    fn what_a_migration_does_is_marked_and_not_its_record() {
        let marked = |own: &str| {
            let statements = ["insert into lakeops.schema_migration values ($1)", own];
            let statements = statements.map(SqlStatement::new).into();
            let operation = Operation::Transaction { statements };
            assert_eq!(without_record(&operation.to_string()), own);
            sign(&operation).0
        };
        for (own, mark) in [
            ("create table t (a int)", '+'),
            ("alter table t add column b int", '+'),
            ("ALTER TABLE t DROP COLUMN b", '-'),
            ("create table n (a int);\ndrop table t", '-'),
            ("comment on table t is 'x'", '~'),
        ] {
            assert_eq!(marked(own), mark, "{own}");
        }
    }

    fn set() -> ChangeSet {
        let end = Operation::sql("select pg_terminate_backend($1)", vec![Bind::Int(4711)]);
        let mut end = Change::new("session 4711", "idle in transaction for 41m", end);
        end.risk = Risk::Medium;
        let guard = "select true from pg_stat_activity\nwhere pid = $1 and usename = $2";
        let binds = vec![Bind::Int(4711), Bind::Text("o'hara".into())];
        end.guard = Some(Query::with_binds(guard, binds));
        end.inverse = Inverse::Impossible { why: "a session cannot be brought back".into() };
        end.cost.insert("sessions_ended".into(), 1);
        let vacuum = Operation::sql_outside_transaction("vacuum (full) \"public\".\"orders\"");
        let mut vacuum = Change::new("public.orders", "62 % dead rows", vacuum);
        vacuum.risk = Risk::High;
        let create = Operation::sql("create index i on t (a)", Vec::new());
        let mut create = Change::new("index i", "missing", create);
        create.recovery = Recovery::Probe;
        let operation = Operation::sql("drop index i", Vec::new());
        create.inverse = Inverse::By { operation, recovery: Recovery::Probe };
        ChangeSet::new(vec![end, vacuum, create])
    }

    #[test]
    fn everything_that_is_approved_is_shown() {
        insta::assert_snapshot!(change_set(Style::PLAIN, &set()), @r#"
        - 0  session 4711  [medium risk]
             select pg_terminate_backend($1)
             $1 = 4711
             why     idle in transaction for 41m
             guard   select true from pg_stat_activity
                     where pid = $1 and usename = $2
                     $1 = 4711
                     $2 = 'o''hara'
             undo    cannot be undone: a session cannot be brought back
             crash   done again, harmlessly
             cost    sessions_ended: 1
             digest  5993fcbcfd12

        ~ 1  public.orders  [high risk]
             vacuum (full) "public"."orders"
             note    runs outside a transaction
             why     62 % dead rows
             undo    nothing to undo
             crash   done again, harmlessly
             digest  55e9c90d1421

        + 2  index i  [low risk]
             create index i on t (a)
             why     missing
             undo    drop index i
             crash   looked at, against what was seen before
             digest  dace36ed6105

        3 changes, high risk, digest 4e1fed09a29e14c1498587995e130c407862d87c61ee59f6f5e483612b40e6c0
        "#);
    }

    #[test]
    fn secrets_are_names() {
        assert_eq!(value(&Bind::Secret("hook".into())), "(secret `hook`)");
        assert_eq!(value(&Bind::TextArray(vec!["a".into()])), "{'a'}");
    }
}
