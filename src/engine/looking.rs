//! Steps that only look: read tools, named queries, waits and verifications.

use serde_json::{Value, json};

use super::programs::{Programs, ScopeOf};
use super::recorder::Gone;
use super::task::{Looked, Task};
use crate::journal::event::{Event, Fact, Found, Rows};
use crate::journal::store::{Durability, EntryFilter};
use crate::kernel::{Bind, Failure, Query, Seen, Timestamp};
use crate::plan::document::{Action, Verify, Wait};
use crate::sop::Scope;
use crate::tools::tool::ToolOutput;

/// Gives the scope of a step's expressions with one more variable in it.
pub(super) type ScopeWith<'a> = &'a (dyn Fn(&str, Value) -> Scope + Sync);

impl Task {
    /// Tries a read tool or a named query once.
    pub(super) async fn attempt_read(&self) -> Result<(), Gone> {
        self.record(vec![self.started()], Durability::Buffered).await?;
        let reader = self.reader();
        let looked = self.within(self.step.timeout.0, self.look(&reader)).await;
        let ended = match looked {
            Looked::Aborted => return Ok(()),
            Looked::Done(Ok(output)) => Event::StepSucceeded {
                step: self.key.clone(),
                output: output.value.into(),
                history: self.located(output.history).into(),
                seen: Vec::new(),
                fact: self.fact_of_call().map(|name| Found::new(name, output.carry)),
            },
            Looked::Done(Err(failure)) => self.failed(failure),
        };
        reader.close().await;
        self.record(vec![ended], Durability::Buffered).await
    }

    fn fact_of_call(&self) -> Option<Fact> {
        let Action::Tool(call) = &self.step.action else { return None };
        self.fact(self.parts.catalog.find(&call.tool)?.erased())
    }

    async fn look(&self, reader: &crate::postgres::PgReader) -> Result<ToolOutput, Failure> {
        match &self.step.action {
            Action::Tool(call) => self.read(reader, &call.tool, self.arguments.clone()).await,
            Action::Sql { sql, .. } => {
                let pinned = self.plan.body.sql.get(sql).ok_or_else(|| {
                    Failure::permanent("plan::missing_sql", format!("the plan holds no `{sql}`"))
                })?;
                let binds = self.arguments.as_array().map(Vec::as_slice).unwrap_or_default();
                let binds = binds.iter().map(bind).collect();
                let rows = reader.query(sql, &Query::with_binds(&pinned.text, binds)).await?;
                Ok(ToolOutput { value: json!({ "rows": rows }), history: Vec::new(), carry: None })
            }
            Action::Script { .. }
            | Action::Workflow(_)
            | Action::Approval(_)
            | Action::Wait(_)
            | Action::Verify(_) => {
                Err(Failure::permanent("engine::not_a_read", "this step does not look"))
            }
        }
    }

    /// Looks once for a wait for a condition or an event, or for a verification. `deadline` is when it
    /// gives up, `since` when it began.
    pub(super) async fn poll(
        &self,
        programs: &Programs,
        (since, deadline): (Timestamp, Timestamp),
        scope: ScopeWith<'_>,
    ) -> Result<(), Gone> {
        let event = match &self.step.action {
            Action::Verify(verify) => self.poll_verify(programs, deadline, (verify, scope)).await,
            Action::Wait(Wait::Condition { call, holds, every, .. }) => {
                let result = match self.result_of(&call.tool).await {
                    Looked::Aborted => return Ok(()),
                    Looked::Done(result) => result,
                };
                let judged = result.and_then(|result| {
                    let scope: ScopeOf<'_> = &|_| scope("result", result.clone());
                    let (met, evaluated) = programs.condition(holds, scope)?;
                    Ok((met, result, evaluated.seen))
                });
                Some(self.waited(judged, every.0, (since, deadline)))
            }
            Action::Wait(Wait::Event { event, when, .. }) => {
                let judged = self.find_event(programs, (event, when.as_deref()), scope).await;
                Some(self.waited(judged, std::time::Duration::from_secs(1), (since, deadline)))
            }
            Action::Wait(Wait::Timer { .. })
            | Action::Tool(_)
            | Action::Script { .. }
            | Action::Sql { .. }
            | Action::Workflow(_)
            | Action::Approval(_) => None,
        };
        match event {
            Some(event) => self.record(vec![event], Durability::Buffered).await,
            None => Ok(()),
        }
    }

    async fn result_of(&self, tool: &str) -> Looked<Value> {
        let reader = self.reader();
        let read = async { Ok(self.read(&reader, tool, self.arguments.clone()).await?.value) };
        let looked = self.within(self.step.timeout.0, read).await;
        reader.close().await;
        looked
    }

    fn waited(
        &self,
        judged: Result<(bool, Value, Vec<Seen>), Failure>,
        every: std::time::Duration,
        (since, deadline): (Timestamp, Timestamp),
    ) -> Event {
        let now = self.parts.clock.now();
        let name = match &self.step.action {
            Action::Wait(Wait::Event { .. }) => "event",
            _ => "result",
        };
        match judged {
            Ok((true, value, seen)) => {
                let waited = humantime::format_duration(now.since(since)).to_string();
                let output = json!({ "waited": waited, name: value });
                Event::StepSucceeded {
                    step: self.key.clone(),
                    output: output.into(),
                    history: Rows::default(),
                    seen,
                    fact: None,
                }
            }
            Ok((false, _, _)) if now >= deadline => self.failed(
                Failure::permanent(
                    "engine::wait_timeout",
                    "what was waited for did not come in time",
                )
                .with_help("raise `within`, or look at what the last poll saw: `lakeops explain`"),
            ),
            Ok((false, result, seen)) => Event::WaitPolled {
                step: self.key.clone(),
                result,
                seen,
                next_at: now.plus(every).min(deadline),
            },
            // Looking can fail for a while; it goes on until the deadline.
            Err(failure) if self.passes(&failure) && now < deadline => Event::WaitPolled {
                step: self.key.clone(),
                result: json!({ "error": failure.message }),
                seen: Vec::new(),
                next_at: now.plus(every).min(deadline),
            },
            Err(failure) => self.failed(failure.with_class(crate::kernel::RetryClass::Permanent)),
        }
    }

    fn passes(&self, failure: &Failure) -> bool {
        self.step.retry.on.contains(&failure.class)
    }

    async fn poll_verify(
        &self,
        programs: &Programs,
        deadline: Timestamp,
        (verify, scope): (&Verify, ScopeWith<'_>),
    ) -> Option<Event> {
        let result = match self.result_of(&verify.call.tool).await {
            Looked::Aborted => return None,
            Looked::Done(result) => result,
        };
        let now = self.parts.clock.now();
        let judged = result.and_then(|result| {
            let scope: ScopeOf<'_> = &|_| scope("result", result.clone());
            let (passed, assertions, seen) = judge(programs, &verify.assert, scope)?;
            Ok((
                passed,
                json!({ "passed": passed, "result": result, "assertions": assertions }),
                seen,
            ))
        });
        let next_at = now.plus(verify.every.0).min(deadline);
        Some(match judged {
            Ok((true, output, seen)) => Event::StepSucceeded {
                step: self.key.clone(),
                output: output.into(),
                history: Rows::default(),
                seen,
                fact: None,
            },
            Ok((false, result, seen)) if now < deadline && !is_final(&result) => {
                Event::WaitPolled { step: self.key.clone(), result, seen, next_at }
            }
            Ok((false, result, _)) => self.failed(not_verified(&result)),
            Err(failure) if self.passes(&failure) && now < deadline => {
                let result = json!({ "passed": false, "error": failure.message });
                Event::WaitPolled { step: self.key.clone(), result, seen: Vec::new(), next_at }
            }
            Err(failure) => self.failed(failure.with_class(crate::kernel::RetryClass::Permanent)),
        })
    }

    async fn find_event(
        &self,
        programs: &Programs,
        (name, when): (&str, Option<&str>),
        scope: ScopeWith<'_>,
    ) -> Result<(bool, Value, Vec<Seen>), Failure> {
        let run = self
            .parts
            .journal
            .find_run(self.run.as_str())
            .await
            .map_err(|error| journal_failure(&error))?;
        let filter = EntryFilter {
            kinds: vec!["event_published".to_owned()],
            since: Some(run.created_at),
            ..EntryFilter::default()
        };
        for entry in
            self.parts.journal.entries(filter).await.map_err(|error| journal_failure(&error))?
        {
            let Event::EventPublished { name: published, payload, .. } = entry.event else {
                continue;
            };
            if published != name {
                continue;
            }
            let mut event = payload;
            if let Value::Object(fields) = &mut event {
                fields.entry("name").or_insert_with(|| json!(published));
            }
            let Some(when) = when else { return Ok((true, event, Vec::new())) };
            let scope: ScopeOf<'_> = &|_| scope("event", event.clone());
            let (met, evaluated) = programs.condition(when, scope)?;
            if met {
                return Ok((true, event, evaluated.seen));
            }
        }
        Ok((false, Value::Null, Vec::new()))
    }
}

pub(super) fn journal_failure(error: &crate::journal::store::JournalError) -> Failure {
    Failure::transient("journal::unreadable", error.to_string())
}

/// A JSON value as a bound value of a named query.
fn bind(value: &Value) -> Bind {
    match value {
        Value::Null => Bind::Null,
        Value::Bool(value) => Bind::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Bind::Int(value),
            (None, Some(value)) => Bind::Float(value),
            (None, None) => Bind::Text(number.to_string()),
        },
        Value::String(text) => Bind::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Bind::Json(value.clone()),
    }
}

type Judged = (bool, Vec<Value>, Vec<Seen>);

/// Evaluates every assertion, also those behind one that does not hold.
fn judge(programs: &Programs, asserts: &[String], scope: ScopeOf<'_>) -> Result<Judged, Failure> {
    let mut passed = true;
    let (mut assertions, mut seen) = (Vec::new(), Vec::new());
    for text in asserts {
        let (holds, evaluated) = programs.condition(text, scope)?;
        passed &= holds;
        assertions.push(json!({ "assert": text, "holds": holds, "saw": evaluated.seen }));
        seen.extend(evaluated.seen);
    }
    Ok((passed, assertions, seen))
}

fn broken(result: &Value) -> impl Iterator<Item = &Value> {
    let all = result["assertions"].as_array().into_iter().flatten();
    all.filter(|assertion| assertion["holds"] == Value::Bool(false))
}

/// Whether an assertion is broken that no further look mends: what it reads does not change any more.
fn is_final(result: &Value) -> bool {
    let is_settled = |seen: &Value| {
        let name = seen["name"].as_str().unwrap_or_default();
        ["steps.", "params.", "target."].iter().any(|known| name.starts_with(known))
    };
    let saw = |assertion: &Value| {
        assertion["saw"].as_array().is_some_and(|saw| !saw.is_empty() && saw.iter().all(is_settled))
    };
    broken(result).any(saw)
}

fn not_verified(result: &Value) -> Failure {
    let texts: Vec<&str> = broken(result).filter_map(|one| one["assert"].as_str()).collect();
    let when = if is_final(result) { "" } else { " in time" };
    let text = format!("not verified{when}: `{}` did not hold", texts.join("`, `"));
    Failure::permanent("engine::not_verified", text)
}
