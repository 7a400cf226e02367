//! One endpoint: listens, wakes its server, knows when it was last used.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::branch::Branch;
use super::clients::{Clients, Ending};
use super::door;
use super::error::FleetError;
use super::login::Logins;
use super::server::{Lease, Server};
use super::types::{Address, ComputeState, EndpointFacts, EndpointId, EndpointSettings};
use crate::kernel::Timestamp;

/// How long the listener rests when the machine has no file left for a new connection.
const REST: Duration = Duration::from_millis(100);

#[derive(Clone, Copy)]
struct Pulse {
    state: ComputeState,
    started: Option<Timestamp>,
}

/// One endpoint.
pub(super) struct Endpoint {
    id: EndpointId,
    pub address: Address,
    pub branch: Arc<Branch>,
    logins: Arc<dyn Logins>,
    tls: TlsAcceptor,
    settings: Mutex<EndpointSettings>,
    clients: Arc<Clients>,
    pulse: Mutex<Pulse>,
    /// 0: never.
    last_active: AtomicI64,
    pub closing: CancellationToken,
}

impl Endpoint {
    pub(super) fn new(
        (settings, address): (EndpointSettings, Address),
        branch: Arc<Branch>,
        logins: Arc<dyn Logins>,
        tls: TlsAcceptor,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: settings.id.clone(),
            address,
            branch,
            logins,
            tls,
            settings: Mutex::new(settings),
            clients: Arc::default(),
            pulse: Mutex::new(Pulse { state: ComputeState::Idle, started: None }),
            last_active: AtomicI64::new(0),
            closing: CancellationToken::new(),
        })
    }

    pub(super) fn id(&self) -> &EndpointId {
        &self.id
    }

    pub(super) fn settings(&self) -> EndpointSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, settings: EndpointSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    pub(super) fn logins(&self) -> &dyn Logins {
        &*self.logins
    }

    pub(super) fn tls(&self) -> &TlsAcceptor {
        &self.tls
    }

    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// The server behind it.
    pub(super) fn server(&self) -> &Arc<Server> {
        if self.settings().read_only { self.branch.follower.server() } else { &self.branch.server }
    }

    /// A client did something.
    pub(super) fn touch(&self) {
        self.last_active.store(self.branch.ground.clock.now().as_millis(), Ordering::Relaxed);
    }

    pub(super) fn facts(&self) -> EndpointFacts {
        let pulse = *self.pulse();
        EndpointFacts {
            address: self.address.clone(),
            state: pulse.state,
            last_active: self.last_active(),
            start_time: pulse.started,
        }
    }

    pub(super) fn is_awake(&self) -> bool {
        self.pulse().state != ComputeState::Idle
    }

    /// Since when nobody has done anything.
    pub(super) fn quiet_since(&self) -> Option<Timestamp> {
        self.last_active().max(self.pulse().started)
    }

    fn last_active(&self) -> Option<Timestamp> {
        let millis = self.last_active.load(Ordering::Relaxed);
        (millis != 0).then(|| Timestamp::from_millis(millis))
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the server, or the copy that only reads.
    pub(super) async fn wake(&self, read_only: bool) -> Result<Lease, FleetError> {
        let settings = self.settings();
        if settings.disabled {
            return Err(FleetError::Disabled(self.id.clone()));
        }
        let slept = {
            let mut pulse = self.pulse();
            let slept = pulse.state == ComputeState::Idle;
            if slept {
                pulse.state = ComputeState::Init;
            }
            slept
        };
        let leased = if read_only || settings.read_only {
            Box::pin(self.branch.follow()).await
        } else {
            self.branch.server.lease().await
        };
        let now = self.branch.ground.clock.now();
        let mut pulse = self.pulse();
        match &leased {
            Ok(lease) => {
                pulse.state = ComputeState::Active;
                if slept {
                    pulse.started = Some(lease.started().max(now));
                }
            }
            Err(_) if slept => pulse.state = ComputeState::Idle,
            Err(_) => {}
        }
        leased
    }

    /// From now on it sleeps; its clients are sent away.
    pub(super) fn sleep(&self, ending: Ending) {
        self.pulse().state = ComputeState::Idle;
        self.clients.end(ending);
    }

    /// Takes clients until it is closed.
    pub(super) async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.closing.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(door::serve(Arc::clone(&self), stream));
                }
                Err(error) => {
                    tracing::warn!(endpoint = %self.id, %error, "a client cannot be taken");
                    let clock = &self.branch.ground.clock;
                    clock.sleep_until(clock.now().plus(REST)).await;
                }
            }
        }
    }
}
