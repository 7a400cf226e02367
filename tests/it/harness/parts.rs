//! What an engine is made of in a test.

use std::sync::Arc;

use lakeops::config::Settings;
use lakeops::engine::Alone;
use lakeops::engine::apply::{Appliers, NoSecrets, NotificationApplier};
use lakeops::engine::parts::{Endpoints, Notifier, Parts};
use lakeops::journal::{Journal, Principal};
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{RandomIds, Severity, SystemClock};
use lakeops::tools::Catalog;

/// Hears messages, and does nothing with them.
pub(crate) struct Nobody;

impl Notifier for Nobody {
    fn notify(&self, _severity: Severity, _title: &str, _body: &str) {}
}

/// Parts with the machine's clock and no history, whose runs nobody else works on and nobody kills.
pub(crate) fn parts(
    journal: Arc<dyn Journal>,
    endpoints: Arc<dyn Endpoints>,
    principal: Principal,
) -> Parts {
    Parts {
        journal,
        ownership: Arc::new(Alone),
        catalog: Catalog::builtin(),
        appliers: Arc::new(Appliers::new(NotificationApplier::default())),
        endpoints,
        settings: Arc::new(Settings::default()),
        secrets: Arc::new(NoSecrets),
        clock: Arc::new(SystemClock),
        ids: Arc::new(RandomIds),
        kill: Arc::new(Unarmed),
        history: None,
        notifier: Arc::new(Nobody),
        principal,
        pid: std::process::id(),
    }
}
