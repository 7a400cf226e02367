//! Upkeep of the history: done again after a crash, which does no harm.

use serde_json::Value;

use super::applier::wrong_kind;
use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Failure, Operation, Receipt};

/// Looks after the tables of the history.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HistoryApplier;

async fn carry_out(cx: &ApplyContext<'_>) -> Result<Receipt, Failure> {
    let Operation::History(upkeep) = cx.operation else {
        return Err(wrong_kind(cx.operation));
    };
    let history = cx.need_history("")?;
    cx.reach("before effect");
    let result = history.upkeep(upkeep).await?;
    cx.reach("after effect");
    Ok(Receipt { result, ..Receipt::default() })
}

impl Applier for HistoryApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        Box::pin(looked(cx, carry_out(cx)))
    }

    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        // What was done already is found done, and costs a look.
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}
