//! Long-running operations: begun together with what they change, carried out by a task, gone on with
//! after a restart.
//!
//! A call checks everything that it can, writes the resource as it shall be and the operation into the
//! catalogue in one transaction, and leaves the work to a task that goes on when the caller has gone.
//! Every task is written so that it can begin again at any point: a process that dies leaves an open
//! operation, and the next one carries it out or fails it and cleans up.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::context::Service;
use super::error::ApiError;
use super::record::{Kind, Record};
use super::store::Tx;
use super::{branches, catalogs, databases, endpoints, projects, roles, snapshots};
use crate::kernel::BoxFuture;

/// How long an answer waits for its operation: clients poll slowly, and most work is soon done.
const HOLD: Duration = Duration::from_secs(20);

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Operation {
    pub name: String,
    pub resource: String,
    pub kind: Kind,
    pub work: Work,
    pub done: bool,
    pub error: Option<OperationError>,
    pub response: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OperationError {
    pub error_code: String,
    pub message: String,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub(super) enum Work {
    /// Makes the resource, after what it replaces is gone.
    Make { replaced: Vec<Record> },
    /// Makes the resource what its record says; `before` is what it was.
    Change { before: Box<Record> },
    /// Deletes it: for good, or so that it can come back.
    Remove { purge: bool },
    /// Brings it back.
    Restore,
}

/// What the catalogue learns when the work is done.
#[derive(Default)]
pub(super) struct Outcome {
    pub keep: Vec<Record>,
    /// Names that are gone, with all below them.
    pub remove: Vec<String>,
}

impl Outcome {
    pub(super) fn keep(records: impl IntoIterator<Item = Record>) -> Self {
        Self { keep: records.into_iter().collect(), remove: Vec::new() }
    }

    pub(super) fn remove(name: &str) -> Self {
        Self { keep: Vec::new(), remove: vec![name.to_owned()] }
    }

    fn apply(&self, tx: &Tx<'_>) -> Result<(), ApiError> {
        self.remove.iter().try_for_each(|name| tx.remove(name))?;
        self.keep.iter().try_for_each(|record| tx.keep(record))?;
        Ok(())
    }
}

impl Operation {
    /// As the service shows it.
    pub(super) fn shown(&self) -> Value {
        let kind = self.kind.type_name();
        let mut shown = json!({
            "name": self.name,
            "done": self.done,
            "metadata": {
                "@type": format!("type.googleapis.com/databricks.postgres.v1.{kind}OperationMetadata"),
            },
        });
        match (&self.error, &self.response) {
            (Some(error), _) => shown["error"] = json!(error),
            (None, Some(response)) => shown["response"] = response.clone(),
            (None, None) => {}
        }
        shown
    }
}

impl Service {
    /// Begins an operation on a resource, unless another one is at work on it, above or below it.
    pub(super) fn begin(
        &self,
        tx: &Tx<'_>,
        record: &Record,
        work: Work,
    ) -> Result<Operation, ApiError> {
        refuse_busy(tx, &record.name)?;
        let operation = Operation {
            name: format!("{}/operations/{}", record.name, self.uuid()),
            resource: record.name.clone(),
            kind: record.kind,
            work,
            done: false,
            error: None,
            response: None,
        };
        save(tx, &operation)?;
        Ok(operation)
    }

    /// An operation that is done with the call itself: the record is as it shall be.
    pub(super) fn done_at_once(
        &self,
        tx: &Tx<'_>,
        record: &Record,
        response: Value,
    ) -> Result<Operation, ApiError> {
        let mut operation = self.begin(tx, record, Work::Restore)?;
        operation.done = true;
        operation.response = Some(response);
        save(tx, &operation)?;
        Ok(operation)
    }

    /// Has a task carry out an operation that was begun, and answers with it, if it can be done soon.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        operation: Operation,
    ) -> Result<Value, ApiError> {
        let slow = self.faults.slowness(&operation.resource);
        let (name, shown) = (operation.name.clone(), operation.shown());
        let task = self.spawn_work(operation, slow);
        if slow.is_some() || tokio::time::timeout(HOLD, task).await.is_err() {
            return Ok(shown);
        }
        self.operation(&name)
    }

    /// Goes on with what an earlier process left.
    pub(super) fn go_on(self: &Arc<Self>) -> Result<(), ApiError> {
        let open = self.store.transact(|tx| Ok::<_, ApiError>(tx.open_operations()?))?;
        for operation in open {
            drop(self.spawn_work(operation, None));
        }
        Ok(())
    }

    fn spawn_work(
        self: &Arc<Self>,
        operation: Operation,
        slow: Option<Duration>,
    ) -> tokio::task::JoinHandle<()> {
        let service = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Some(slow) = slow {
                let until = service.clock.now().plus(slow);
                tokio::select! {
                    () = service.clock.sleep_until(until) => {}
                    // The next process goes on with it.
                    () = service.end.cancelled() => return,
                }
            }
            let name = operation.name.clone();
            if let Err(error) = Box::pin(service.work(operation)).await {
                tracing::error!(operation = %name, %error, "an operation cannot be settled");
            }
        })
    }

    async fn work(self: &Arc<Self>, mut operation: Operation) -> Result<(), ApiError> {
        let outcome = match Box::pin(self.perform(&operation)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(operation = %operation.name, %error, "an operation failed");
                operation.error = Some(error_of(&error));
                Box::pin(self.clean_up(&operation)).await
            }
        };
        if let Some(error) = self.faults.operation_error(&operation.resource) {
            operation.error = Some(error_of(&error));
        }
        operation.done = true;
        self.store.transact(|tx| {
            outcome.apply(tx)?;
            if operation.error.is_none() {
                let found = tx.record(&operation.resource)?;
                let is_there = !matches!(operation.work, Work::Remove { .. });
                operation.response = Some(match found.filter(|_| is_there) {
                    Some(record) => self.typed(tx, &record)?,
                    None => json!({ "@type": "type.googleapis.com/google.protobuf.Empty" }),
                });
            }
            save(tx, &operation)
        })
    }

    fn perform<'a>(
        self: &'a Arc<Self>,
        operation: &'a Operation,
    ) -> BoxFuture<'a, Result<Outcome, ApiError>> {
        match operation.kind {
            Kind::Project => Box::pin(projects::perform(self, operation)),
            Kind::Branch => Box::pin(branches::perform(self, operation)),
            Kind::Endpoint => Box::pin(endpoints::perform(self, operation)),
            Kind::Role => Box::pin(roles::perform(self, operation)),
            Kind::Database => Box::pin(databases::perform(self, operation)),
            Kind::Snapshot => Box::pin(snapshots::perform(self, operation)),
            Kind::Catalog | Kind::SyncedTable => Box::pin(catalogs::perform(self, operation)),
        }
    }

    /// After a failure: what was being made is removed, what was being changed is as before.
    async fn clean_up(self: &Arc<Self>, operation: &Operation) -> Outcome {
        match &operation.work {
            Work::Make { .. } => {
                let found = self.store.transact(|tx| {
                    let mut all = tx.below::<Record>(&operation.resource)?;
                    all.extend(tx.record(&operation.resource)?);
                    Ok::<_, ApiError>(all)
                });
                let removed = match found {
                    Ok(records) => Box::pin(self.dismantle(&records)).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    tracing::warn!(resource = %operation.resource, %error, "not cleaned up");
                }
                Outcome::remove(&operation.resource)
            }
            Work::Change { before } => Outcome::keep([(**before).clone()]),
            Work::Remove { .. } | Work::Restore => Outcome::default(),
        }
    }

    /// An operation as it is now.
    pub(super) fn operation(&self, name: &str) -> Result<Value, ApiError> {
        let found =
            self.store.transact(|tx| Ok::<_, ApiError>(tx.operation::<Operation>(name)?))?;
        found.map(|it| it.shown()).ok_or_else(|| ApiError::not_found("operation"))
    }
}

/// Refuses what another operation is at work on, above or below it.
pub(super) fn refuse_busy(tx: &Tx<'_>, name: &str) -> Result<(), ApiError> {
    let is_below = |name: &str, above: &str| {
        name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    for open in tx.open_operations::<Operation>()? {
        if is_below(name, &open.resource) || is_below(&open.resource, name) {
            return Err(ApiError::busy(&open.resource, &open.name));
        }
    }
    Ok(())
}

fn save(tx: &Tx<'_>, operation: &Operation) -> Result<(), ApiError> {
    Ok(tx.put_operation((&operation.name, &operation.resource), operation.done, operation)?)
}

fn error_of(error: &ApiError) -> OperationError {
    OperationError { error_code: error.code.clone(), message: error.message.clone() }
}
