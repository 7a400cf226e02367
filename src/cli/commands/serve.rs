//! `lakeops serve`

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::alert::courier::Courier;
use crate::cli::channels;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::told_to_end;
use crate::cli::occasions::Files;
use crate::cli::session::Session;
use crate::config::Connection;
use crate::engine::Engine;
use crate::journal::ServerLock;
use crate::journal::store::RunFilter;
use crate::kernel::Clock;
use crate::server::http::{self, Shared};
use crate::server::metrics::Metrics;
use crate::server::{Most, Server};

/// Run what is due by the clock and by events, and go on with what waits
///
/// Takes up every run that is not over, then starts runs by the schedules and triggers of the workflows,
/// ends timers and expired approvals, and answers on the loopback interface: `/health`, `/metrics` for
/// Prometheus, and `/v1/runs` for who has a token of `[server.tokens]`. Everything that it decides is in
/// the journal; it can be killed at any moment. SIGTERM and Ctrl-C settle what has begun and park the
/// runs; a second one ends it at once, which is as safe.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops serve
  lakeops serve --wait                   take over when the server that lives now ends
  lakeops serve --listen 127.0.0.1:0     any free port; it is printed
  curl -s http://127.0.0.1:8470/health")]
pub(crate) struct Args {
    /// Where to listen: an address of the loopback interface [default: `server.listen`]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Wait for the server that lives on this state to end, instead of giving up
    #[arg(long)]
    wait: bool,
}

/// How often the outbox is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Another server is asked for so often whether it is gone.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Serves.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    let mut configured = session.config.server().clone();
    if let Some(listen) = args.listen {
        configured.listen = listen;
    }
    let address = configured.address().map_err(CliError::usage)?;
    let stop = CancellationToken::new();
    let listener = tokio::spawn(stopped(stop.clone()));
    let Some(lock) = lock(session, args.wait, &stop).await? else { return Ok(Exit::Interrupted) };
    let tokens = tokens(session, &configured.tokens)?;
    let engine = engine(session).await?;
    let now = session.shell.clock.now();
    let metrics = Arc::new(Metrics::new(now));
    let (ask, asks) = mpsc::channel(64);
    let shared =
        Shared { engine: engine.clone(), metrics: Arc::clone(&metrics), tokens, asks: ask };
    let bound = bind(address).await?;
    let files = Files::new(session);
    announce(session, bound.1)?;
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let most = Most { at_once: number(configured.max_runs), queued: number(configured.max_queued) };
    let courier = channels::courier(session)?;
    let clock = Arc::clone(&session.shell.clock);
    let telling = tokio::spawn(deliver(courier, Arc::clone(&metrics), (clock, stop.clone())));
    let server = Server::new(engine, &files, (metrics, asks), most);
    let answering = tokio::spawn(http::serve(bound.0, Arc::new(shared), stop.clone()));
    let served = Box::pin(server.serve(stop.clone())).await;
    stop.cancel();
    listener.abort();
    // What was being answered is answered before the lock is given back.
    let _ended = (answering.await, telling.await);
    drop(lock);
    served?;
    session.shell.out.note("stopped; `lakeops serve` goes on where this was");
    Ok(Exit::Done)
}

/// The lock of the server; `None`: stopped while waiting for it.
async fn lock(
    session: &Session<'_>,
    waits: bool,
    stop: &CancellationToken,
) -> Result<Option<ServerLock>, CliError> {
    let state = session.config.state_dir();
    let mut told = false;
    loop {
        let taken = ServerLock::try_acquire(&state, "lakeops serve")
            .map_err(|source| CliError::unwritable(state.join("server.lock"), source))?;
        let holder = match taken {
            Ok(lock) => return Ok(Some(lock)),
            Err(holder) => holder.to_string(),
        };
        if !waits {
            return Err(CliError::Served { holder });
        }
        if !told {
            session.shell.out.note(&format!("waiting: {holder} serves this state directory"));
            told = true;
        }
        let clock = &session.shell.clock;
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = clock.sleep_until(clock.now().plus(ASK_AGAIN)) => {}
        }
    }
}

/// Who serves this state at this moment.
pub(crate) fn server_of(state: &Path) -> Option<String> {
    ServerLock::holder(state).ok().flatten().map(|holder| holder.to_string())
}

fn tokens(
    session: &Session<'_>,
    configured: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<(String, crate::kernel::Secret<String>)>, CliError> {
    let token = |(name, secret): (&String, &String)| {
        let value = session.secrets.get(secret).map_err(|error| {
            CliError::usage(format!("the token of `server.tokens.{name}` cannot be had: {error}"))
        })?;
        Ok((name.clone(), value))
    };
    configured.iter().map(token).collect()
}

/// An engine for every connection that runs may name.
async fn engine(session: &Session<'_>) -> Result<Engine, CliError> {
    let config = &session.config;
    let mut names = vec![config.selected_connection().to_owned()];
    // Servers and workspaces are reached when a run asks for them; only the local one would be started.
    for (name, connection) in config.connections() {
        if !matches!(connection, Connection::Local) && session.place(name).await.is_ok() {
            names.push(name.clone());
        }
    }
    let open = RunFilter { unfinished: true, ..RunFilter::default() };
    for run in session.journal()?.runs(open).await? {
        names.push(session.read_run(&run).await?.0.body.connection);
    }
    names.sort();
    names.dedup();
    names.retain(|name| config.connections().contains_key(name));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    session.engine(&names).await
}

/// Carries alerts to their receivers until the server stops; what is not taken by then waits in the journal.
async fn deliver(
    courier: Option<Courier>,
    metrics: Arc<Metrics>,
    (clock, stop): (Arc<dyn Clock>, CancellationToken),
) {
    let Some(mut courier) = courier else { return };
    let mut is_last = false;
    loop {
        let soon = clock.now().plus(LOOK_AGAIN);
        let next = match courier.turn().await {
            Ok(turn) => {
                for (channel, taken, count) in &turn.sent {
                    metrics.alerts(channel, *taken, *count);
                }
                metrics.alerts_waiting(turn.waiting);
                turn.next.map_or(soon, |next| next.min(soon))
            }
            Err(error) => {
                tracing::warn!(%error, "alerts are looked at again");
                soon
            }
        };
        if is_last {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => is_last = true,
            () = clock.sleep_until(next.max(clock.now().plus(ASK_AGAIN))) => {}
        }
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), CliError> {
    let refused = |source| CliError::unreadable(format!("the address {address}"), source);
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Says where it listens: one line of data, for who started it.
fn announce(session: &Session<'_>, address: SocketAddr) -> Result<(), CliError> {
    let url = format!("http://{address}");
    let data = json!({ "url": url, "pid": std::process::id() });
    session.shell.out.data(&data, |_| format!("serving on {url}; Ctrl-C stops\n"))
}

/// Cancels at the first SIGTERM or Ctrl-C, and ends the process at the second.
async fn stopped(stop: CancellationToken) {
    for is_first in [true, false] {
        told_to_end().await;
        if is_first {
            stop.cancel();
        } else {
            // As safe as any other crash: what is not durable has not happened.
            let _sent =
                nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
