//! SQL statements: exactly once inside a transaction, carefully outside of one.

use std::time::Duration;

use serde_json::{Value, json};
use tracing::debug;

use super::applier::wrong_kind;
use super::index_probe::waits_for_snapshots;
use super::lasting::changes_rows;
use super::look::{GUARD, looked, measured, truth};
use super::setup::APPLIED_CHANGE_INSERT;
use super::witness::{look_inside, look_on};
use super::{Applied, Applier, ApplyContext, Recovered, keeps_session, orphan, sql_probe};
use crate::kernel::change::Origin;
use crate::kernel::{
    Bind, BoxFuture, Failure, Operation, Receipt, Recovery, RetryClass, Secret, Span, SqlFile,
    SqlStatement,
};
use crate::postgres::{Outcome, PgError, PgReader, PgWriter, ServerFacts, WriterSetup};
use crate::sql_file;

pub(super) const APPLIED_CHANGE_FIND: SqlFile = sql_file!("engine/applied_change_find");
pub(super) const SESSION_PROGRESS: SqlFile = sql_file!("engine/session_progress");

/// How often a long statement is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// Two sessions that both `create … if not exists` can collide in the catalog; the second try sees
/// what the other made.
const SETUP_TRIES: u32 = 3;

/// Carries out SQL statements.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqlApplier;

impl SqlApplier {
    async fn carry_out(self, cx: &ApplyContext<'_>) -> Result<Applied, Failure> {
        match work(cx)? {
            Work::Inside(statements) => {
                for _ in 1..SETUP_TRIES {
                    match in_transaction(cx, statements).await {
                        Err(failure) if is_setup_collision(cx, &failure) => {}
                        Err(failure) if is_collision(&failure) => {
                            return overtaken(cx, failure).await;
                        }
                        other => return other,
                    }
                }
                in_transaction(cx, statements).await
            }
            Work::Outside(_) if cx.recovery == Recovery::Transactional => Err(Failure::permanent(
                "apply::not_transactional",
                format!(
                    "the change of {} runs outside a transaction and cannot be recovered by one",
                    cx.change.object
                ),
            )),
            Work::Outside(statement) => {
                looked(cx, Box::pin(outside_transaction(cx, statement))).await
            }
        }
    }

    async fn find(self, cx: &ApplyContext<'_>, fingerprint: &Value) -> Result<Recovered, Failure> {
        let work = work(cx)?;
        let reader = cx.placed_reader().await?;
        let found = Self::find_with(cx, work, fingerprint, &reader).await;
        reader.close().await;
        found
    }

    async fn find_with(
        cx: &ApplyContext<'_>,
        work: Work<'_>,
        fingerprint: &Value,
        reader: &PgReader,
    ) -> Result<Recovered, Failure> {
        if let Some(why) = orphan::wait_for_session(cx, reader).await? {
            return Ok(Recovered::Unknown(why));
        }
        match cx.recovery {
            Recovery::Transactional => find_key(cx, &reader.server().await?, reader).await,
            Recovery::Repeatable => Ok(Recovered::NotApplied),
            Recovery::Probe => match work.single() {
                Some(statement) => sql_probe::find(cx, statement, fingerprint, reader).await,
                None => Ok(unseen(cx)),
            },
            Recovery::Ask => Ok(unseen(cx)),
        }
    }
}

impl Applier for SqlApplier {
    fn fingerprint<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async move {
            match (work(cx)?.single(), cx.recovery) {
                (Some(statement), Recovery::Probe) => sql_probe::fingerprint(cx, statement).await,
                _ => Ok(Value::Null),
            }
        })
    }

    fn prepare<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, ()> {
        Box::pin(prepared(cx))
    }

    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(self.carry_out(cx))
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(self.find(cx, fingerprint))
    }
}

/// What is to be carried out.
#[derive(Clone, Copy)]
enum Work<'a> {
    /// All of it in one transaction.
    Inside(&'a [SqlStatement]),
    /// One statement that no transaction surrounds.
    Outside(&'a SqlStatement),
}

impl<'a> Work<'a> {
    /// The statement, when it is one.
    const fn single(self) -> Option<&'a SqlStatement> {
        match self {
            Self::Inside([statement]) | Self::Outside(statement) => Some(statement),
            Self::Inside(_) => None,
        }
    }
}

fn work<'a>(cx: &ApplyContext<'a>) -> Result<Work<'a>, Failure> {
    match cx.operation {
        Operation::Sql { statement, transactional: false } => Ok(Work::Outside(statement)),
        Operation::Sql { .. } | Operation::Transaction { .. } => {
            Ok(Work::Inside(cx.operation.statements()))
        }
        other => Err(wrong_kind(other)),
    }
}

fn unseen(cx: &ApplyContext<'_>) -> Recovered {
    Recovered::Unknown(format!("whether `{}` happened cannot be seen afterwards", cx.operation))
}

/// What a change's statement is called in messages: its kind of object is enough to find it.
pub(super) fn statement_name(cx: &ApplyContext<'_>) -> String {
    format!("change of {}", cx.change.object)
}

/// A session named by the change's key, on the server that was proposed on.
pub(super) async fn connect(cx: &ApplyContext<'_>) -> Result<PgWriter, Failure> {
    let name = cx.key.application_name();
    Ok(PgWriter::connect(cx.need_endpoint()?, &setup(cx, &name)).await?)
}

fn setup<'a>(cx: &ApplyContext<'a>, name: &'a str) -> WriterSetup<'a> {
    WriterSetup {
        application_name: name,
        run: cx.key.run.as_str(),
        statement_timeout: cx.time_limit(),
        lock_timeout: cx.change.lock_timeout.unwrap_or_else(|| lock_timeout(cx)).0,
        limits: &cx.settings.limits,
        expected: cx.expected,
    }
}

/// Who waits for a lock that others queue behind waits briefly. A concurrent build holds a lock that
/// stops neither reads nor writes, and each wait of it is for transactions that were there before:
/// three seconds would let any report or backup kill it, and leave its remnant to be removed.
fn lock_timeout(cx: &ApplyContext<'_>) -> Span {
    let limits = &cx.settings.limits;
    match cx.operation {
        Operation::Sql { statement, transactional: false }
            if waits_for_snapshots(&statement.text) =>
        {
            limits.concurrent_lock_timeout
        }
        _ => limits.lock_timeout,
    }
}

pub(super) async fn execute(
    cx: &ApplyContext<'_>,
    writer: &mut PgWriter,
    name: &str,
    statement: &SqlStatement,
) -> Result<Outcome, PgError> {
    let secret = |name: &str| -> Option<Secret<String>> { cx.secrets.secret(name) };
    writer.execute(name, statement, &secret).await
}

/// Carries out the statements of a transaction; of several, each one's rows and duration are kept.
async fn execute_all(
    cx: &ApplyContext<'_>,
    writer: &mut PgWriter,
    statements: &[SqlStatement],
) -> Result<Receipt, PgError> {
    if let [statement] = statements {
        return execute(cx, writer, &statement_name(cx), statement).await.map(receipt);
    }
    let (mut rows, mut result) = (0, Vec::new());
    for (place, statement) in (1..).zip(statements) {
        let name =
            format!("statement {place} of {} in the {}", statements.len(), statement_name(cx));
        let start = cx.clock.now();
        let outcome = execute(cx, writer, &name, statement).await?;
        rows += outcome.rows;
        result.push(json!({ "rows": outcome.rows, "duration_ms": cx.millis_since(start) }));
    }
    Ok(Receipt { rows: Some(rows), result: Value::Array(result), ..Receipt::default() })
}

fn receipt(outcome: Outcome) -> Receipt {
    let Outcome { rows, returned } = outcome;
    let result = if returned.is_empty() { Value::Null } else { Value::Array(returned) };
    Receipt { rows: Some(rows), result, ..Receipt::default() }
}

/// The key row's key names the place as well: a branch has a copy of its parent's table. The facts of
/// the proposal come first: they stay the same when a privilege to see them comes or goes.
fn row_key(cx: &ApplyContext<'_>, here: &ServerFacts) -> String {
    let place = cx.expected.unwrap_or(here);
    format!("{}@{}/{}", cx.key.text(), place.place().unwrap_or("-"), place.database_oid)
}

/// One transaction: claim the key, check the guard, measure, carry out, measure, commit.
async fn in_transaction(
    cx: &ApplyContext<'_>,
    statements: &[SqlStatement],
) -> Result<Applied, Failure> {
    let Begun { mut writer, is_ours, ahead } = begun(cx).await?;
    let done = match ahead {
        Some(done) => done,
        None => inside(cx, &mut writer, is_ours, statements).await,
    };
    let applied = match done {
        Ok(Inside::Commit(receipt)) => {
            cx.reach("in transaction");
            writer.commit().await.map_err(commit_failure)?;
            cx.reach("after effect");
            Applied::Done(receipt)
        }
        Ok(Inside::Leave(applied)) => {
            writer.rollback().await?;
            applied
        }
        // Whatever went wrong before the commit was asked for, nothing was committed: dropping the
        // session rolls back.
        Err(failure) => return Err(failure),
    };
    leave(cx, writer).await;
    Ok(applied)
}

/// A session in the change's transaction.
pub(in crate::engine) struct Begun {
    writer: PgWriter,
    /// Whether the change's key is ours now.
    is_ours: bool,
    /// What became of the statements, where they were sent ahead of the change's start.
    ahead: Option<Result<Inside, Failure>>,
}

/// The change's transaction: the one that was begun in a session which the run has kept, or one of its own.
async fn begun(cx: &ApplyContext<'_>) -> Result<Begun, Failure> {
    let name = cx.key.application_name();
    let kept = cx.sessions.and_then(|sessions| sessions.run.take_begun(&name));
    if let Some(begun) = kept {
        cx.reach("before effect");
        return Ok(begun);
    }
    let mut writer = connect(cx).await?;
    cx.reach("before effect");
    writer.begin().await?;
    let is_ours = match claim_key(cx, &mut writer).await {
        // A session that a dead process left may hold the key.
        Err(error) if error.sqlstate() == Some("55P03") => {
            writer.close().await;
            let reader = cx.placed_reader().await?;
            let at_work = orphan::wait_for_session(cx, &reader).await;
            reader.close().await;
            if at_work?.is_some() {
                return Err(error.into());
            }
            writer = connect(cx).await?;
            writer.begin().await?;
            claim_key(cx, &mut writer).await
        }
        other => other,
    };
    Ok(Begun { writer, is_ours: is_ours.map_err(not_set_up)?, ahead: None })
}

/// Begins the change in a session that the run has kept: gives it the name of the change, opens its transaction,
/// claims the key, and lets a statement that only changes rows do so. All of it while the journal writes that the
/// change begins; what commits it comes after that. Whoever dies before leaves a transaction that ends with its
/// client, or with its statement.
///
/// When the session turns out to be broken, or the key cannot be had, another session finds out why.
async fn prepared(cx: &ApplyContext<'_>) {
    let (Some(sessions), Some(endpoint), true) =
        (cx.sessions, cx.endpoint, keeps_session(cx.operation, cx.recovery))
    else {
        return;
    };
    let name = cx.key.application_name();
    let begun = sessions.run.begin((endpoint, cx.expected), &setup(cx, &name)).await;
    let Some(mut writer) = begun else { return };
    cx.reach("session named");
    let is_ours = match claim_key(cx, &mut writer).await {
        Ok(is_ours) => is_ours,
        Err(error) => return debug!(%error, "a kept session could not claim the key"),
    };
    cx.reach("key claimed");
    let ahead = match work(cx) {
        Ok(Work::Inside(statements)) if is_ours && goes_ahead(cx, statements) => {
            Some(inside(cx, &mut writer, is_ours, statements).await)
        }
        _ => None,
    };
    sessions.run.begun(&name, Begun { writer, is_ours, ahead });
}

/// Whether the statements may be sent before the change's start is on disk. They hold locks until then: those of
/// rows hold up little. Whatever may do more than change rows waits for the start.
fn goes_ahead(cx: &ApplyContext<'_>, statements: &[SqlStatement]) -> bool {
    cx.witness.is_none() && statements.iter().all(|statement| changes_rows(&statement.text))
}

/// Leaves a session whose transaction has ended to the next change, when this one leaves nothing in it.
async fn leave(cx: &ApplyContext<'_>, writer: PgWriter) {
    match (cx.sessions, cx.endpoint) {
        (Some(sessions), Some(endpoint)) if keeps_session(cx.operation, cx.recovery) => {
            let boundary = || cx.key.boundary("session kept");
            sessions.run.keep_writer((endpoint, sessions.target), writer, boundary);
        }
        _ => writer.close().await,
    }
}

enum Inside {
    Commit(Receipt),
    Leave(Applied),
}

async fn inside(
    cx: &ApplyContext<'_>,
    writer: &mut PgWriter,
    is_ours: bool,
    statements: &[SqlStatement],
) -> Result<Inside, Failure> {
    if !is_ours {
        let receipt = Receipt { recovered: true, ..Receipt::default() };
        return Ok(Inside::Leave(Applied::Done(receipt)));
    }
    if let Some(guard) = cx.guard()
        && !truth(&writer.query(GUARD, guard).await?)?
    {
        return Ok(Inside::Leave(Applied::Moot));
    }
    let measure = cx.change.measure.as_ref();
    let before = measured(writer, measure).await?;
    let start = cx.clock.now();
    let receipt = execute_all(cx, writer, statements).await?;
    let duration_ms = cx.millis_since(start);
    look_inside(cx, writer).await?;
    if measure.is_some() {
        writer.forget_statistics().await?;
    }
    let after = measured(writer, measure).await?;
    Ok(Inside::Commit(Receipt { before, after, duration_ms, ..receipt }))
}

/// Whether the key is ours now, where the change has one. A rival that holds it uncommitted makes us wait, as
/// long as the lock timeout allows.
async fn claim_key(cx: &ApplyContext<'_>, writer: &mut PgWriter) -> Result<bool, PgError> {
    if cx.recovery != Recovery::Transactional {
        return Ok(true);
    }
    let binds = [
        Bind::Text(row_key(cx, writer.facts())),
        Bind::Text(cx.key.run.to_string()),
        Bind::Text(cx.key.step.clone()),
    ];
    Ok(writer.execute_often(&APPLIED_CHANGE_INSERT, &binds).await?.rows > 0)
}

fn not_set_up(error: PgError) -> Failure {
    if matches!(error.sqlstate(), Some("42P01" | "3F000")) {
        return Failure::permanent(
            "apply::not_set_up",
            "the target has no table lakeops.applied_change, which makes a change happen exactly once",
        )
        .with_help("propose again: the set then begins with making it");
    }
    error.into()
}

/// An error message on commit means that it was rolled back; silence means that nobody knows.
fn commit_failure(error: PgError) -> Failure {
    let is_unknown = error.ends_session();
    let failure = Failure::from(error);
    if is_unknown { failure.with_class(RetryClass::InDoubt) } else { failure }
}

/// Whether what was to be made is there already.
fn is_collision(failure: &Failure) -> bool {
    matches!(failure.code.as_str(), "postgres::constraint_violated" | "postgres::already_exists")
}

fn is_setup_collision(cx: &ApplyContext<'_>, failure: &Failure) -> bool {
    cx.change.origin == Origin::Engine && is_collision(failure)
}

/// A rival may have done it between the guard and the effect. Nothing of ours was committed, and the
/// guard says whether anything is left to do.
async fn overtaken(cx: &ApplyContext<'_>, failure: Failure) -> Result<Applied, Failure> {
    let Some(guard) = cx.guard() else { return Err(failure) };
    let reader = cx.placed_reader().await?;
    let holds = reader.query(GUARD, guard).await;
    reader.close().await;
    if truth(&holds?)? { Err(failure) } else { Ok(Applied::Moot) }
}

async fn outside_transaction(
    cx: &ApplyContext<'_>,
    statement: &SqlStatement,
) -> Result<Receipt, Failure> {
    let before = match cx.recovery {
        Recovery::Probe => sql_probe::fingerprint(cx, statement).await?,
        Recovery::Transactional | Recovery::Repeatable | Recovery::Ask => Value::Null,
    };
    let mut writer = connect(cx).await?;
    cx.reach("before effect");
    let done = {
        let name = statement_name(cx);
        let work = std::pin::pin!(execute(cx, &mut writer, &name, statement));
        let reports = std::pin::pin!(futures::future::join(report_progress(cx), look_on(cx)));
        match futures::future::select(work, reports).await {
            futures::future::Either::Left((done, _)) => done,
            futures::future::Either::Right(((never, _), _)) => match never {},
        }
    };
    match done {
        Ok(outcome) => {
            cx.reach("after effect");
            writer.close().await;
            Ok(receipt(outcome))
        }
        Err(error) if error.ends_session() => {
            Err(Failure::from(error).with_class(RetryClass::InDoubt))
        }
        Err(error) => {
            writer.close().await;
            Err(sql_probe::tidy_up(cx, statement, &before, error.into()).await)
        }
    }
}

/// Tells how far the statement is, until it is dropped.
async fn report_progress(cx: &ApplyContext<'_>) -> std::convert::Infallible {
    let reader = cx.reader().ok();
    let name = [Bind::Text(cx.key.application_name())];
    loop {
        cx.clock.sleep_until(cx.clock.now().plus(PROGRESS_EVERY)).await;
        let Some(reader) = &reader else { continue };
        // Progress is a courtesy: whoever may not see it gets none.
        for line in reader.rows::<Value>(&SESSION_PROGRESS, &name).await.unwrap_or_default() {
            (cx.progress)(progress_line(&line));
        }
    }
}

fn progress_line(line: &Value) -> String {
    let text = |key: &str| line[key].as_str().unwrap_or_default();
    let number = |key: &str| line[key].as_u64().unwrap_or_default();
    let (done, total) = (number("done"), number("total"));
    match (done * 100).checked_div(total) {
        Some(percent) => {
            format!("{}: {}, {percent}% of {total} blocks", text("command"), text("phase"))
        }
        None => format!("{}: {}", text("command"), text("phase")),
    }
}

async fn find_key(
    cx: &ApplyContext<'_>,
    place: &ServerFacts,
    reader: &PgReader,
) -> Result<Recovered, Failure> {
    let binds = [Bind::Text(row_key(cx, place))];
    let rows: Vec<Value> = reader.rows(&APPLIED_CHANGE_FIND, &binds).await.map_err(not_set_up)?;
    Ok(match rows.first() {
        Some(row) => Recovered::Applied(Receipt {
            recovered: true,
            result: json!({ "committed_at": row["at"] }),
            ..Receipt::default()
        }),
        None => Recovered::NotApplied,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        let line = json!({"command": "vacuum", "phase": "scanning heap", "done": 50, "total": 200});
        assert_eq!(progress_line(&line), "vacuum: scanning heap, 25% of 200 blocks");
        let line = json!({"command": "create index", "phase": "waiting", "done": 0, "total": 0});
        assert_eq!(progress_line(&line), "create index: waiting");
    }
}
