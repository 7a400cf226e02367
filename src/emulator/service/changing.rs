//! What deleting, changing and bringing back have in common for all kinds of resources.

use std::sync::Arc;

use serde_json::Value;

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::fields::{self, Field};
use super::operation::Work;
use super::record::Record;
use super::store::Tx;

impl Service {
    /// Deletes a resource for good, once nothing speaks against it.
    pub(super) async fn remove(
        self: &Arc<Self>,
        name: &str,
        check: impl FnOnce(&Tx<'_>, &mut Record) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let operation = self.store.transact(|tx| {
            let mut record = tx.need_alive(name)?;
            check(tx, &mut record)?;
            self.begin(tx, &record, Work::Remove { purge: true })
        })?;
        self.carry_out(operation).await
    }

    /// Makes a resource what the mask and the body of a call say, once `check` is content with it. It is
    /// given the resource as it shall be, and as it was.
    pub(super) async fn change(
        self: &Arc<Self>,
        (call, name): (&Call, &str),
        fields: &[Field],
        check: impl FnOnce(&Tx<'_>, &mut Record, &Record) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let mask = call.required("update_mask")?;
        let given = fields::spec_of(&call.body)?;
        let operation = self.store.transact(|tx| {
            let mut record = tx.need_alive(name)?;
            let before = Box::new(record.clone());
            record.spec = fields::updated(fields, (mask, &given), &record.spec)?;
            check(tx, &mut record, &before)?;
            record.updated = self.clock.now();
            let operation = self.begin(tx, &record, Work::Change { before })?;
            tx.keep(&record)?;
            Ok::<_, ApiError>(operation)
        })?;
        self.carry_out(operation).await
    }

    /// Brings back what was deleted and is not purged yet.
    pub(super) async fn undelete(
        self: &Arc<Self>,
        name: &str,
        check: impl FnOnce(&Tx<'_>, &Record) -> Result<(), ApiError>,
    ) -> Result<Value, ApiError> {
        let operation = self.store.transact(|tx| {
            let record = tx.need(name)?;
            if record.is_alive() {
                let text = format!("{} is not deleted", record.kind.word());
                return Err(ApiError::forbidden_by_state(text));
            }
            check(tx, &record)?;
            self.begin(tx, &record, Work::Restore)
        })?;
        self.carry_out(operation).await
    }
}
