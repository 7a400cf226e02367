//! Events: nothing leaves the process. The journal row that the engine commits together with the
//! settlement is the whole effect.

use serde_json::Value;

use super::look::looked;
use super::{Applied, Applier, ApplyContext, Recovered};
use crate::kernel::{BoxFuture, Failure, Receipt};

/// Publishes events.
#[derive(Clone, Copy, Debug, Default)]
pub struct PublishApplier;

impl Applier for PublishApplier {
    fn apply<'a>(&'a self, cx: &'a ApplyContext<'a>) -> BoxFuture<'a, Result<Applied, Failure>> {
        let nothing = async {
            cx.reach("before effect");
            Ok(Receipt::default())
        };
        Box::pin(looked(cx, nothing))
    }

    fn recover<'a>(
        &'a self,
        _cx: &'a ApplyContext<'a>,
        _fingerprint: &'a Value,
    ) -> BoxFuture<'a, Result<Recovered, Failure>> {
        // The row would have been committed with the settlement, which is not there.
        Box::pin(async { Ok(Recovered::NotApplied) })
    }
}
