//! The door of an endpoint: ends TLS, asks who may come in, and passes bytes on to the server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use super::clients::{Ending, Seat};
use super::endpoint::Endpoint;
use super::login::{LoginDecision, LoginRequest};
use super::server::Lease;
use super::settings::RESERVED;
use super::wire::{self, CancelKey, Opening, Refusal, Startup};

/// A client that has not logged in by then is sent away, as by the server itself.
const LOGIN_LIMIT: Duration = Duration::from_mins(1);
/// The first byte of a client that begins with TLS without asking for it.
const TLS_RECORD: u8 = 0x16;
const BUFFER: usize = 32 << 10;

/// A client that is in.
struct Admitted<S> {
    client: S,
    server: UnixStream,
    seat: Seat,
    lease: Lease,
}

/// Serves one client until it or the server ends.
pub(super) async fn serve(endpoint: Arc<Endpoint>, stream: TcpStream) {
    // Small messages go to and fro; waiting to join them only delays.
    drop(stream.set_nodelay(true));
    let entered = tokio::time::timeout(LOGIN_LIMIT, Box::pin(enter(&endpoint, stream))).await;
    let Ok(Ok(Some(admitted))) = entered else { return };
    let (seat, lease) = (admitted.seat, admitted.lease);
    let relayed = relay(&endpoint, admitted.client, admitted.server, seat.ending.clone()).await;
    tracing::debug!(endpoint = %endpoint.id(), ?relayed, "a client has gone");
    // The place is free, and the server may be stopped, only now.
    drop((seat, lease));
}

async fn enter(
    endpoint: &Endpoint,
    mut stream: TcpStream,
) -> io::Result<Option<Admitted<tokio_rustls::server::TlsStream<TcpStream>>>> {
    let mut first = [0_u8];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first == [TLS_RECORD] {
        return inside(endpoint, endpoint.tls().accept(stream).await?).await;
    }
    loop {
        match wire::opening(&mut stream).await? {
            None => return Ok(None),
            Some(Opening::Gss) => wire::send(&mut stream, b"N").await?,
            Some(Opening::Tls) => {
                wire::send(&mut stream, b"S").await?;
                return inside(endpoint, endpoint.tls().accept(stream).await?).await;
            }
            Some(Opening::Cancel(key)) => return cancel(endpoint, key).await.map(|()| None),
            Some(Opening::Startup(_)) => {
                let message = "connections without TLS are refused: set sslmode=require";
                refuse(&mut stream, &Refusal::new("28000", message)).await?;
                return Ok(None);
            }
        }
    }
}

async fn inside<S>(endpoint: &Endpoint, mut client: S) -> io::Result<Option<Admitted<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let startup = match wire::opening(&mut client).await? {
        Some(Opening::Startup(startup)) => startup,
        Some(Opening::Cancel(key)) => return cancel(endpoint, key).await.map(|()| None),
        _ => return Ok(None),
    };
    if let Some(negotiation) = startup.negotiation() {
        wire::send(&mut client, &negotiation).await?;
    }
    wire::send(&mut client, &wire::password_request()).await?;
    let answer = wire::receive(&mut client).await?;
    let Some(secret) = answer.password() else {
        refuse(&mut client, &Refusal::new("08P01", "a password was expected")).await?;
        return Ok(None);
    };
    let admitted = async {
        let read_only = check(endpoint, &startup, secret).await?;
        let (seat, lease) = awake(endpoint, read_only).await?;
        let server = start_session(&mut client, &startup, &seat, &lease).await?;
        Ok((server, seat, lease))
    };
    match admitted.await {
        Ok((server, seat, lease)) => Ok(Some(Admitted { client, server, seat, lease })),
        Err(Denied::Refused(refusal)) => refuse(&mut client, &refusal).await.map(|()| None),
        Err(Denied::Broken(error)) => Err(error),
    }
}

/// Why a client does not come in.
enum Denied {
    /// For a reason that it is told.
    Refused(Refusal),
    /// It, or the server, has gone; or it was told by the server.
    Broken(io::Error),
}

impl From<io::Error> for Denied {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

fn denied(sqlstate: &'static str, message: impl Into<String>) -> Denied {
    Denied::Refused(Refusal::new(sqlstate, message))
}

/// Asks who may log in; says whether the session may only read.
async fn check(endpoint: &Endpoint, startup: &Startup, secret: &str) -> Result<bool, Denied> {
    if startup.role().is_empty() {
        return Err(denied("28000", "no role was named to log in as"));
    }
    let login = LoginRequest {
        endpoint: endpoint.id(),
        role: startup.role(),
        database: startup.database(),
        secret,
    };
    match endpoint.logins().check(login).await {
        LoginDecision::Allowed { read_only } => Ok(read_only),
        LoginDecision::Refused { message } => Err(denied("28P01", message)),
    }
}

/// Takes a place and wakes the server.
async fn awake(endpoint: &Endpoint, read_only: bool) -> Result<(Seat, Lease), Denied> {
    let settings = endpoint.settings();
    if settings.disabled {
        return Err(denied("55000", "the endpoint is disabled; enable it and connect again"));
    }
    let limit = settings.max_connections.saturating_sub(RESERVED).max(1);
    let Some(seat) = endpoint.clients().sit(limit) else {
        return Err(denied("53300", "sorry, too many clients already"));
    };
    match endpoint.wake(read_only).await {
        Ok(lease) => Ok((seat, lease)),
        Err(error) => {
            tracing::warn!(endpoint = %endpoint.id(), %error, "an endpoint cannot wake");
            Err(denied("57P03", format!("the endpoint cannot wake: {error}")))
        }
    }
}

/// Begins the session on the server, and passes on what the server says until it is ready.
async fn start_session(
    client: &mut (impl AsyncWrite + Unpin),
    startup: &Startup,
    seat: &Seat,
    lease: &Lease,
) -> Result<UnixStream, Denied> {
    let mut server = UnixStream::connect(lease.socket()).await?;
    wire::send(&mut server, &startup.to_bytes()).await?;
    let mut heard = Vec::new();
    loop {
        let message = wire::receive(&mut server).await?;
        if message.setting() == Some(("is_superuser", "on")) {
            return Err(denied("28000", "no superuser can log in here"));
        }
        if let Some(key) = message.cancel_key() {
            seat.remember(key, lease.socket());
        }
        heard.extend(message.to_bytes());
        match message.kind {
            b'Z' => break,
            b'E' => {
                wire::send(client, &heard).await?;
                return Err(Denied::Broken(io::ErrorKind::ConnectionRefused.into()));
            }
            _ => {}
        }
    }
    wire::send(client, &heard).await?;
    Ok(server)
}

/// Passes a cancel request on to the server that has the session. Nobody is told whether there is one.
async fn cancel(endpoint: &Endpoint, key: CancelKey) -> io::Result<()> {
    let Some(socket) = endpoint.clients().server_of(key) else { return Ok(()) };
    let mut server = UnixStream::connect(socket).await?;
    wire::send(&mut server, &wire::cancel_request(key)).await?;
    // The server closes when it has done it; so do we, then.
    server.read_to_end(&mut Vec::new()).await.map(drop)
}

async fn refuse(client: &mut (impl AsyncWrite + Unpin), refusal: &Refusal) -> io::Result<()> {
    wire::send(client, &refusal.to_bytes()).await?;
    client.shutdown().await
}

/// Passes bytes both ways until one side ends, or the session is ended from outside.
async fn relay<S>(
    endpoint: &Endpoint,
    client: S,
    server: UnixStream,
    mut ending: tokio::sync::watch::Receiver<Ending>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let both = async {
        tokio::select! {
            // A client that has gone takes its session with it.
            moved = flow(endpoint, &mut from_client, &mut to_server) => moved,
            moved = flow(endpoint, &mut from_server, &mut to_client) => moved,
        }
    };
    let ended = tokio::select! {
        moved = both => moved.map(|()| Ending::No)?,
        ended = ended(&mut ending) => ended,
    };
    if ended == Ending::Told {
        let message = "terminating connection due to administrator command";
        wire::send(&mut to_client, &Refusal::new("57P01", message).to_bytes()).await?;
    }
    if ended != Ending::Broken {
        to_client.shutdown().await?;
    }
    Ok(())
}

/// Resolves when the session is ended from outside.
async fn ended(ending: &mut tokio::sync::watch::Receiver<Ending>) -> Ending {
    ending.wait_for(|ending| *ending != Ending::No).await.map_or(Ending::Broken, |ending| *ending)
}

async fn flow(
    endpoint: &Endpoint,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        endpoint.touch();
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}
