//! Experiments: statements that may write, on a branch that is there to be thrown away, always rolled
//! back.

use serde_json::{Value, json};

use super::applier::wrong_kind;
use super::sql::{connect, execute};
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{Bind, BoxFuture, Failure, Ident, Operation, Receipt, SqlFile, SqlStatement};
use crate::postgres::{PgError, PgWriter};
use crate::sql_file;

pub(super) const SET_LOCAL: SqlFile = sql_file!("engine/set_local");

/// Carries out experiments.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExperimentApplier;

impl ExperimentApplier {
    async fn carry_out(self, cx: &ApplyContext<'_>) -> Result<Applied, Failure> {
        let Operation::SqlExperiment { role, settings, statements } = cx.operation else {
            return Err(wrong_kind(cx.operation));
        };
        if !cx.throw_away {
            let text = format!(
                "the experiment on {} may write, and its database is not there to be thrown away",
                cx.change.object
            );
            return Err(Failure::permanent("experiment::not_throw_away", text).with_help(
                "experiment on a branch whose id begins with `tmp-` and that expires by itself",
            ));
        }
        let mut writer = connect(cx).await?;
        cx.reach("before effect");
        let start = cx.clock.now();
        writer.begin().await?;
        let prepared = prepare(&mut writer, role.as_ref(), settings).await;
        let result = match prepared {
            Ok(()) => observe(cx, &mut writer, statements).await,
            Err(error) => Err(unprepared(error, role.as_ref())),
        };
        // Dropping the session rolls back as well, should this fail.
        let rolled_back = writer.rollback().await;
        writer.close().await;
        let result = result?;
        rolled_back?;
        cx.reach("after effect");
        let duration_ms = cx.millis_since(start);
        Ok(Applied::Done(Receipt { result, duration_ms, ..Receipt::default() }))
    }
}

async fn prepare(
    writer: &mut PgWriter,
    role: Option<&Ident>,
    settings: &std::collections::BTreeMap<String, String>,
) -> Result<(), PgError> {
    for (name, value) in settings {
        let binds = vec![Bind::Text(name.clone()), Bind::Text(value.clone())];
        writer.execute_file(&SET_LOCAL, binds).await?;
    }
    if let Some(role) = role {
        let statement = SqlStatement::new(format!("set local role {role}"));
        writer.execute("role of the experiment", &statement, &|_| None).await?;
    }
    Ok(())
}

/// Why nothing was tried; who may not act as the role is told what is missing.
fn unprepared(error: PgError, role: Option<&Ident>) -> Failure {
    let is_denied = error.sqlstate() == Some("42501");
    let failure = Failure::from(error);
    match role {
        Some(role) if is_denied => {
            failure.with_help(format!("let the role that works here act as it: GRANT {role} TO …"))
        }
        _ => failure,
    }
}

/// Runs the statements one after the other. What the server refuses is what the experiment found; a lost
/// connection is a failure.
async fn observe(
    cx: &ApplyContext<'_>,
    writer: &mut PgWriter,
    statements: &[SqlStatement],
) -> Result<Value, Failure> {
    let mut seen = Vec::new();
    for (place, statement) in (1..).zip(statements) {
        let name = format!("statement {place} of {} in the experiment", statements.len());
        let start = cx.clock.now();
        match execute(cx, writer, &name, statement).await {
            Ok(outcome) => seen.push(json!({
                "rows": outcome.rows,
                "returned": outcome.returned,
                "duration_ms": cx.millis_since(start),
            })),
            Err(error) if error.ends_session() || error.sqlstate().is_none() => {
                return Err(error.into());
            }
            Err(error) => {
                seen.push(json!({
                    "sqlstate": error.sqlstate(),
                    "error": error.to_string(),
                    "duration_ms": cx.millis_since(start),
                }));
                break;
            }
        }
    }
    Ok(Value::Array(seen))
}

impl Applier for ExperimentApplier {
    fn fingerprint<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, Failure>> {
        Box::pin(async { Ok(Value::Null) })
    }

    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(self.carry_out(cx))
    }

    /// Nothing of it stays, so it is done again.
    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}
