//! The endpoints of the fleet: opened, changed, woken, suspended, closed.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::address;
use super::branch::Branch;
use super::clients::Ending;
use super::endpoint::Endpoint;
use super::error::FleetError;
use super::ground::check_id;
use super::keeper::Fleet;
use super::settings;
use super::types::{BranchId, EndpointFacts, EndpointId, EndpointSettings};
use crate::kernel::SqlFile;
use crate::postgres::PgAdmin;
use crate::sql_file;

pub(super) const SESSIONS_AT_WORK: SqlFile = sql_file!("emulator/sessions_at_work");

/// How long whoever uses a server may take before the server is stopped later instead.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long they may take where the server has to be started again at once.
const CHANGE_PATIENCE: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
struct AtWork {
    sessions: u64,
}

impl Fleet {
    /// Listens for an endpoint, and starts its server unless it is disabled.
    pub async fn open_endpoint(
        &self,
        settings: EndpointSettings,
    ) -> Result<EndpointFacts, FleetError> {
        let wakes = !settings.disabled;
        Box::pin(self.listen_for(settings, wakes)).await
    }

    /// Listens for an endpoint that sleeps until a client comes.
    pub async fn open_endpoint_asleep(
        &self,
        settings: EndpointSettings,
    ) -> Result<EndpointFacts, FleetError> {
        Box::pin(self.listen_for(settings, false)).await
    }

    async fn listen_for(
        &self,
        settings: EndpointSettings,
        wakes: bool,
    ) -> Result<EndpointFacts, FleetError> {
        check_id(&settings.id.0)?;
        settings::check(&settings.pg_settings)?;
        let branch = self.find(&settings.branch)?;
        if self.endpoints().contains_key(&settings.id) {
            return Err(FleetError::EndpointExists(settings.id));
        }
        let (listener, address) = address::listen(&self.ground.state, &settings.id).await?;
        let tls = self.authority.acceptor(address::ip(&address))?;
        let logins = Arc::clone(&self.logins);
        let endpoint = Endpoint::new((settings, address), branch, logins, tls);
        self.endpoints().insert(endpoint.id().clone(), Arc::clone(&endpoint));
        let opened = async {
            configure(&endpoint).await?;
            if wakes {
                drop(Box::pin(endpoint.wake(false)).await?);
            }
            Ok(())
        };
        if let Err(error) = opened.await {
            self.endpoints().remove(endpoint.id());
            return Err(error);
        }
        tokio::spawn(Arc::clone(&endpoint).listen(listener));
        Ok(endpoint.facts())
    }

    /// Changes an endpoint. When the server's settings differ, it is started again: its clients are
    /// sent away, as by the real service.
    pub async fn change_endpoint(
        &self,
        settings: EndpointSettings,
    ) -> Result<EndpointFacts, FleetError> {
        settings::check(&settings.pg_settings)?;
        let endpoint = self.endpoint(&settings.id)?;
        if endpoint.branch.id != settings.branch {
            return Err(FleetError::NoEndpoint(settings.id));
        }
        let before = endpoint.settings();
        let was_awake = endpoint.is_awake();
        let disabled = settings.disabled;
        if disabled || before.read_only != settings.read_only {
            self.put_to_sleep(&endpoint, Ending::Told).await?;
        }
        endpoint.set(settings);
        let changed = Box::pin(configure(&endpoint)).await;
        if changed.is_err() {
            endpoint.set(before.clone());
            configure(&endpoint).await?;
            changed?;
        }
        if !disabled && (was_awake || before.disabled) {
            drop(Box::pin(endpoint.wake(false)).await?);
        }
        Ok(endpoint.facts())
    }

    /// Stops listening for an endpoint; its clients are sent away and its server is stopped.
    pub async fn close_endpoint(&self, id: &EndpointId) -> Result<(), FleetError> {
        let endpoint = self.endpoint(id)?;
        endpoint.closing.cancel();
        self.put_to_sleep(&endpoint, Ending::Told).await?;
        self.endpoints().remove(id);
        address::forget(&self.ground.state, id);
        Ok(())
    }

    /// What is known of an open endpoint.
    pub fn endpoint_facts(&self, id: &EndpointId) -> Option<EndpointFacts> {
        self.endpoints().get(id).map(|endpoint| endpoint.facts())
    }

    /// Wakes an endpoint, as a client would.
    pub async fn wake(&self, id: &EndpointId) -> Result<EndpointFacts, FleetError> {
        let endpoint = self.endpoint(id)?;
        drop(Box::pin(endpoint.wake(false)).await?);
        Ok(endpoint.facts())
    }

    /// Suspends an endpoint: its clients are sent away and its server is stopped, as soon as no other
    /// endpoint or session needs it.
    pub async fn suspend(&self, id: &EndpointId) -> Result<(), FleetError> {
        let endpoint = self.endpoint(id)?;
        self.put_to_sleep(&endpoint, Ending::Told).await
    }

    /// Breaks the connections of all clients of an endpoint.
    pub fn drop_connections(&self, id: &EndpointId) {
        if let Some(endpoint) = self.endpoints().get(id) {
            endpoint.clients().end(Ending::Broken);
        }
    }

    /// The certificate that clients verify the endpoints with.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    fn endpoint(&self, id: &EndpointId) -> Result<Arc<Endpoint>, FleetError> {
        self.endpoints().get(id).cloned().ok_or_else(|| FleetError::NoEndpoint(id.clone()))
    }

    pub(super) fn endpoint_of(&self, branch: &BranchId) -> Option<EndpointId> {
        let endpoints = self.endpoints();
        endpoints.values().find(|it| it.branch.id == *branch).map(|it| it.id().clone())
    }

    pub(super) async fn put_to_sleep(
        &self,
        endpoint: &Arc<Endpoint>,
        ending: Ending,
    ) -> Result<(), FleetError> {
        endpoint.sleep(ending);
        if !self.is_needed(endpoint) {
            // A server that somebody still uses is stopped a little later, by the keeper.
            endpoint.server().stop(PATIENCE).await?;
        }
        Ok(())
    }

    /// Whether another endpoint that is awake has the same server.
    fn is_needed(&self, endpoint: &Arc<Endpoint>) -> bool {
        let endpoints = self.endpoints();
        let mut others = endpoints.values().filter(|other| !Arc::ptr_eq(other, endpoint));
        others.any(|other| other.is_awake() && Arc::ptr_eq(other.server(), endpoint.server()))
    }

    /// Suspends the endpoints that nobody has used for long enough.
    pub(super) async fn suspend_idle(&self) -> Result<(), FleetError> {
        let endpoints: Vec<_> = self.endpoints().values().cloned().collect();
        for endpoint in endpoints {
            let Some(limit) = endpoint.settings().suspend_after else { continue };
            let quiet = endpoint.quiet_since().map(|since| self.ground.clock.now().since(since));
            if !endpoint.is_awake() || quiet.is_none_or(|quiet| quiet < limit) {
                continue;
            }
            if endpoint.clients().count() > 0 && at_work(&endpoint).await? {
                endpoint.touch();
                continue;
            }
            self.put_to_sleep(&endpoint, Ending::Told).await?;
        }
        Ok(())
    }

    /// Stops the servers that no endpoint that is awake needs, and that nobody has used for a while.
    pub(super) async fn stop_unused(&self, linger: Duration) -> Result<(), FleetError> {
        let branches: Vec<Arc<Branch>> = self.held().values().cloned().collect();
        let now = self.ground.clock.now().as_millis();
        let linger = i64::try_from(linger.as_millis()).unwrap_or(i64::MAX);
        let since = crate::kernel::Timestamp::from_millis(now.saturating_sub(linger));
        for branch in branches {
            for server in [&branch.server, branch.follower.server()] {
                let needed = self
                    .endpoints()
                    .values()
                    .any(|it| it.is_awake() && Arc::ptr_eq(it.server(), server));
                if !needed {
                    server.stop_unused(since).await?;
                }
            }
        }
        Ok(())
    }
}

/// Whether a client of the endpoint's server works, or holds a transaction open, although no byte
/// has moved for a while.
async fn at_work(endpoint: &Endpoint) -> Result<bool, FleetError> {
    let Some(lease) = endpoint.server().lease_running().await else { return Ok(false) };
    let mut session = PgAdmin::connect(lease.endpoint(), PATIENCE).await?;
    let found: AtWork = session.row(&SESSIONS_AT_WORK, &[]).await?;
    session.close().await;
    Ok(found.sessions > 0)
}

/// Hands the server the settings of the endpoint. One that runs with others is stopped.
async fn configure(endpoint: &Arc<Endpoint>) -> Result<(), FleetError> {
    let settings = endpoint.settings();
    let changed = endpoint.branch.configure(&settings);
    if changed && endpoint.server().runs() != Some(false) {
        endpoint.clients().end(Ending::Told);
        // Sessions of another endpoint may read from the same copy: they are not sent away, and it has
        // the new settings from its next start on.
        let patience = if settings.read_only { Duration::ZERO } else { CHANGE_PATIENCE };
        if !endpoint.server().stop(patience).await? && !settings.read_only {
            let branch = endpoint.branch.id.clone();
            return Err(FleetError::Busy { branch, what: "somebody works on it" });
        }
    }
    Ok(())
}
