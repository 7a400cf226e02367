//! What collecting tools share: they never wake a suspended compute, and let an unused one fall asleep.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::ReadContext;
use crate::kernel::{Failure, Span, Timestamp};
use crate::lakebase::database::SUSPENDED;

/// How much longer than its time to suspend a compute is left alone.
const MARGIN: Span = Span::from_secs(120);

/// Whether anything was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// It was.
    #[default]
    Collected,
    /// The compute is suspended, or is left alone so that it can be.
    Skipped,
    /// What is to be read is not there.
    NotMeasured,
}

/// Whether reading failed because the compute is suspended.
pub(super) fn is_suspended(failure: &Failure) -> bool {
    failure.code == SUSPENDED
}

/// Why a compute is left alone: nobody but us was active when it was last looked at, and whoever looks
/// again too soon is the one who keeps it awake. Only a workspace suspends computes.
pub(super) fn keep_quiet(
    cx: &ReadContext<'_>,
    others_active: Option<bool>,
    looked_at: Option<Timestamp>,
    suspend_after: Span,
) -> Option<String> {
    if cx.workspace.is_none() || suspend_after.0.is_zero() || others_active != Some(false) {
        return None;
    }
    let until = looked_at?.plus(suspend_after.0).plus(MARGIN.0);
    (cx.clock.now() < until).then(|| {
        format!("nobody but us was active: left alone until {until}, so that it can be suspended")
    })
}
