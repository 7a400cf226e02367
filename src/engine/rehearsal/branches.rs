//! Throw-away branches of a Lakebase workspace.

use std::sync::Arc;

use crate::engine::parts::{Rehearsals, ThrowAway};
use crate::kernel::{BoxFuture, Failure, Span, Target};
use crate::lakebase::{ReadApi, Workspace};
use crate::tools::throw_away;

/// Makes them by the workspace's API.
pub(in crate::engine) struct WorkspaceRehearsals(pub(in crate::engine) Arc<dyn Workspace>);

impl Rehearsals for WorkspaceRehearsals {
    fn branch<'a>(
        &'a self,
        target: &'a Target,
        suffix: &'a str,
        ttl: Span,
    ) -> BoxFuture<'a, Result<ThrowAway, Failure>> {
        Box::pin(async move {
            let api: &dyn ReadApi = &*self.0;
            let (name, change) = throw_away(api, target, suffix, ttl).await?;
            let target = Target {
                project: Some(name.project),
                branch: Some(name.branch.clone()),
                database: target.database.clone(),
            };
            Ok(ThrowAway { id: name.branch, target, change })
        })
    }
}
