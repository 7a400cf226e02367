//! Calls of a workspace's REST API.
//!
//! What proves a call is looked at before it is sent, so that who finds it done adopts it; the name of
//! the operation that it starts is noted durably before anybody waits for it, so that a later process
//! waits for the same one; and the proof is read back at the end.

use std::time::Duration;

use serde_json::Value;

use super::applier::wrong_kind;
use super::http::with_secrets;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{
    ApiCall, ApiState, BoxFuture, Failure, Operation, Receipt, Recovery, RetryClass, Timestamp,
};
use crate::lakebase::api::{ALREADY_EXISTS, find};
use crate::lakebase::compare::differences;
use crate::lakebase::resource::is_deleted;
use crate::lakebase::{self, Reply};

/// The pauses between two looks at what is under way.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long what an operation made may take to show once the operation has ended.
const SHOWS_WITHIN: Duration = Duration::from_secs(30);

/// Sends calls to the workspace.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiApplier;

/// What a look at a state found.
enum Found {
    /// It is so; the resource, null where there is none.
    Holds(Value),
    /// Something is there and is otherwise.
    Otherwise { resource: Value, differs: Vec<String> },
    /// Nothing is there.
    Nothing,
    /// It cannot be seen.
    Unseen,
}

impl ApiApplier {
    async fn carry_out(self, cx: &ApplyContext<'_>) -> Result<Applied, Failure> {
        let call = call(cx)?;
        if let Some(condition) = &call.only_if
            && !matches!(look(cx, condition).await?, Found::Holds(_) | Found::Unseen)
        {
            return Ok(Applied::Moot);
        }
        looked(cx, self.send(cx, call)).await
    }

    async fn send(self, cx: &ApplyContext<'_>, call: &ApiCall) -> Result<Receipt, Failure> {
        match look(cx, &call.proof).await? {
            Found::Holds(resource) => return Ok(receipt(200, true, None, resource)),
            Found::Otherwise { resource, differs } if call.creates() && !is_passing(&resource) => {
                return Err(exists_otherwise(call, &differs));
            }
            Found::Otherwise { .. } | Found::Nothing | Found::Unseen => {}
        }
        let body = call.body.as_ref().map(|body| with_secrets(body, cx.secrets)).transpose()?;
        cx.reach("before effect");
        let sent = cx.need_workspace()?.send(&ApiCall { body, ..call.clone() }).await;
        let reply = match sent {
            Ok(reply) => reply,
            // Another try of ours may have come first.
            Err(failure) if is_there(&failure) && call.proof != ApiState::Unseen => {
                return adopt(cx, call, failure).await;
            }
            Err(failure) => return Err(failure),
        };
        cx.reach("after effect");
        let Reply { status, body } = reply;
        let Some(operation) = lakebase::Operation::of(&body) else {
            return proven(cx, call, (status, None), body).await;
        };
        cx.notes.note(&operation.name).await?;
        let waited = if operation.done {
            ended(operation.clone()).map(Waited::Ended)
        } else {
            wait_for(cx, &operation.name).await
        };
        let response = match waited {
            Ok(Waited::Ended(response)) => response,
            Ok(Waited::Forgotten) => Value::Null,
            // It may say so and have done it all the same.
            Err(failure) if failure.code == OPERATION_FAILED => {
                return match settled_look(cx, call, deadline(cx)).await {
                    Ok(Found::Holds(resource)) => {
                        Ok(receipt(status, false, Some(operation.name), resource))
                    }
                    Ok(_) => Err(failure),
                    Err(unseen) => Err(unseen.with_class(RetryClass::InDoubt)),
                };
            }
            Err(failure) => return Err(failure),
        };
        proven(cx, call, (status, Some(operation.name)), response).await
    }

    async fn find_out(self, cx: &ApplyContext<'_>) -> Result<Recovered, Failure> {
        let call = call(cx)?;
        if let Some(name) = cx.notes.last() {
            return found_by_name(cx, call, name).await;
        }
        if call.proof == ApiState::Unseen {
            return Ok(if cx.recovery == Recovery::Repeatable {
                Recovered::NotApplied
            } else {
                Recovered::Unknown(format!("nobody saw the answer to {}", plain(call)))
            });
        }
        Ok(match settled_look(cx, call, deadline(cx)).await? {
            Found::Holds(resource) => recovered(None, resource),
            // The id was chosen by us: sending it again cannot make a second one.
            Found::Otherwise { .. } | Found::Nothing if cx.recovery != Recovery::Ask => {
                Recovered::NotApplied
            }
            Found::Otherwise { .. } | Found::Nothing | Found::Unseen => {
                Recovered::Unknown(format!("nobody saw the answer to {}", plain(call)))
            }
        })
    }
}

async fn found_by_name(
    cx: &ApplyContext<'_>,
    call: &ApiCall,
    name: String,
) -> Result<Recovered, Failure> {
    match wait_for(cx, &name).await {
        Ok(Waited::Ended(response)) => match shown(cx, call).await? {
            Found::Holds(resource) => Ok(recovered(Some(name), resource)),
            Found::Unseen => Ok(recovered(Some(name), response)),
            found => Ok(Recovered::Unknown(not_as_asked(call, &found))),
        },
        Ok(Waited::Forgotten) => match settled_look(cx, call, deadline(cx)).await? {
            Found::Holds(resource) => Ok(recovered(Some(name), resource)),
            Found::Nothing => Ok(Recovered::NotApplied),
            Found::Otherwise { .. } | Found::Unseen => {
                Ok(Recovered::Unknown(format!("the workspace has forgotten operation {name}")))
            }
        },
        // The operation itself failed: it is over. What it may have left is looked at by the next try.
        Err(failure) if failure.code == OPERATION_FAILED => {
            Ok(match settled_look(cx, call, deadline(cx)).await? {
                Found::Holds(resource) => recovered(Some(name), resource),
                Found::Otherwise { .. } | Found::Nothing | Found::Unseen => Recovered::NotApplied,
            })
        }
        // It is looked at again; what is under way stays noted.
        Err(failure) => Err(failure.with_class(RetryClass::Transient)),
    }
}

const OPERATION_FAILED: &str = "lakebase::operation_failed";

enum Waited {
    Ended(Value),
    /// The workspace does not know the operation any more.
    Forgotten,
}

/// Polls an operation with back-off until it ends. When time runs out it may still go on: in doubt.
async fn wait_for(cx: &ApplyContext<'_>, name: &str) -> Result<Waited, Failure> {
    let workspace = cx.need_workspace()?;
    let deadline = deadline(cx);
    let mut pauses = Pauses::new();
    loop {
        let found = lakebase::operation(workspace, name).await;
        match found.map_err(|failure| failure.with_class(RetryClass::InDoubt))? {
            None => return Ok(Waited::Forgotten),
            Some(operation) if operation.done => return ended(operation).map(Waited::Ended),
            Some(_) => {}
        }
        if cx.clock.now() >= deadline {
            let limit = humantime::format_duration(cx.time_limit());
            let text = format!("operation {name} did not end within {limit}");
            return Err(Failure::permanent("lakebase::still_running", text)
                .with_class(RetryClass::InDoubt)
                .with_help("it goes on by itself; resume waits for it again"));
        }
        (cx.progress)(format!("waiting for {name}"));
        pauses.pause(cx, deadline).await;
    }
}

fn ended(operation: lakebase::Operation) -> Result<Value, Failure> {
    match operation.error {
        None => Ok(operation.response.unwrap_or_default()),
        Some(error) => Err(Failure::permanent(
            OPERATION_FAILED,
            format!(
                "operation {} failed: [{}] {}",
                operation.name, error.error_code, error.message
            ),
        )),
    }
}

/// Reads the proof back.
async fn proven(
    cx: &ApplyContext<'_>,
    call: &ApiCall,
    (status, operation): (u16, Option<String>),
    response: Value,
) -> Result<Receipt, Failure> {
    let in_doubt = |failure: Failure| failure.with_class(RetryClass::InDoubt);
    match shown(cx, call).await.map_err(in_doubt)? {
        Found::Holds(resource) => Ok(receipt(status, false, operation, resource)),
        Found::Unseen => Ok(receipt(status, false, operation, response)),
        found => {
            Err(in_doubt(Failure::permanent("lakebase::not_as_asked", not_as_asked(call, &found))))
        }
    }
}

/// After a refusal because something is there already, or is gone already: is it what was asked for?
async fn adopt(
    cx: &ApplyContext<'_>,
    call: &ApiCall,
    failure: Failure,
) -> Result<Receipt, Failure> {
    match settled_look(cx, call, deadline(cx)).await? {
        Found::Holds(resource) => Ok(receipt(200, true, None, resource)),
        Found::Otherwise { differs, .. } if call.creates() => Err(exists_otherwise(call, &differs)),
        Found::Otherwise { .. } | Found::Nothing | Found::Unseen => Err(failure),
    }
}

/// Looks at the proof until it shows, for a while: what an operation made may show late.
async fn shown(cx: &ApplyContext<'_>, call: &ApiCall) -> Result<Found, Failure> {
    let until = cx.clock.now().plus(SHOWS_WITHIN.min(cx.time_limit()));
    let mut pauses = Pauses::new();
    loop {
        let found = look(cx, &call.proof).await?;
        let done = matches!(found, Found::Holds(_) | Found::Unseen);
        if done || cx.clock.now() >= until {
            return Ok(found);
        }
        pauses.pause(cx, until).await;
    }
}

/// Looks at the proof, and again as long as what is there is still being made or changed.
async fn settled_look(
    cx: &ApplyContext<'_>,
    call: &ApiCall,
    until: Timestamp,
) -> Result<Found, Failure> {
    let mut pauses = Pauses::new();
    loop {
        let found = look(cx, &call.proof).await?;
        let passing = matches!(&found, Found::Otherwise { resource, .. } if is_passing(resource));
        if !passing || cx.clock.now() >= until {
            return Ok(found);
        }
        pauses.pause(cx, until).await;
    }
}

async fn look(cx: &ApplyContext<'_>, state: &ApiState) -> Result<Found, Failure> {
    let workspace = cx.need_workspace()?;
    let living = async |path: &str| {
        Ok::<_, Failure>(find(workspace, path).await?.filter(|found| !is_deleted(found)))
    };
    Ok(match state {
        ApiState::Unseen => Found::Unseen,
        ApiState::Absent { path } => match living(path).await? {
            None => Found::Holds(Value::Null),
            Some(resource) => {
                let differs = vec![format!("{path} is still there")];
                Found::Otherwise { resource, differs }
            }
        },
        ApiState::Present { path, fields } => match living(path).await? {
            None => Found::Nothing,
            Some(resource) => {
                let differs = differences(fields, &resource);
                if differs.is_empty() {
                    Found::Holds(resource)
                } else {
                    Found::Otherwise { resource, differs }
                }
            }
        },
    })
}

/// Whether a resource is on its way to another state.
fn is_passing(resource: &Value) -> bool {
    let status = &resource["status"];
    let pending = status["pending_state"].as_str().is_some_and(|state| !state.is_empty());
    pending || matches!(status["current_state"].as_str(), Some("INIT" | "IMPORTING" | "RESETTING"))
}

fn is_there(failure: &Failure) -> bool {
    failure.code == ALREADY_EXISTS || failure.code == lakebase::api::NOT_FOUND
}

fn call<'a>(cx: &ApplyContext<'a>) -> Result<&'a ApiCall, Failure> {
    match cx.operation {
        Operation::Api(call) => Ok(call),
        other => Err(wrong_kind(other)),
    }
}

fn deadline(cx: &ApplyContext<'_>) -> Timestamp {
    cx.clock.now().plus(cx.time_limit())
}

/// The call without its body, for messages.
fn plain(call: &ApiCall) -> ApiCall {
    ApiCall { body: None, ..call.clone() }
}

fn exists_otherwise(call: &ApiCall, differs: &[String]) -> Failure {
    let text =
        format!("{}: it exists already and is otherwise: {}", plain(call), differs.join("; "));
    Failure::permanent("lakebase::exists_otherwise", text)
        .with_help("choose another id, or make what is there what you ask for")
}

fn not_as_asked(call: &ApiCall, found: &Found) -> String {
    let what = match found {
        Found::Otherwise { differs, .. } => differs.join("; "),
        Found::Holds(_) | Found::Nothing | Found::Unseen => format!("not so: {}", call.proof),
    };
    format!("{} ended well, and yet: {what}", plain(call))
}

fn receipt(status: u16, adopted: bool, operation: Option<String>, resource: Value) -> Receipt {
    let result = [
        ("status", Value::from(status)),
        ("adopted", Value::from(adopted)),
        ("operation", Value::from(operation)),
        ("resource", resource),
    ];
    let result = result.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Receipt { result, ..Receipt::default() }
}

fn recovered(operation: Option<String>, resource: Value) -> Recovered {
    let receipt = receipt(200, false, operation, resource);
    Recovered::Applied(Receipt { recovered: true, ..receipt })
}

/// Pauses that grow.
struct Pauses(Duration);

impl Pauses {
    const fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn pause(&mut self, cx: &ApplyContext<'_>, until: Timestamp) {
        cx.clock.sleep_until(cx.clock.now().plus(self.0).min(until)).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

impl Applier for ApiApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(self.carry_out(cx))
    }

    fn recover<'a>(
        &'a self,
        cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        Box::pin(self.find_out(cx))
    }
}
