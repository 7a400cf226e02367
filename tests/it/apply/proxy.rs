//! What lies between us and a server, and fails in ways that a server alone cannot be made to fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lakeops::kernel::Secret;
use lakeops::postgres::PgEndpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// How the proxy misbehaves.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The reply to `commit` never arrives: the connection breaks instead.
    CommitReplyLost,
    /// Start-up options are dropped, as a pooler does that ignores them.
    OptionsDropped,
    /// At the nth piece that the server sends, over all connections, something happens to it.
    Piece(Arc<AtomicU64>, u64, Trouble),
}

/// What happens to a piece.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Trouble {
    /// Both sides are cut off at once.
    Reset,
    /// Nothing arrives any more, and nobody hangs up.
    Silence,
    /// We hear that the server will say no more; what we say still arrives.
    HalfClosed,
    /// It comes byte by byte.
    Slow,
}

/// Starts a proxy in front of a server that listens on a Unix socket.
pub(crate) async fn start(backend: &PgEndpoint, fault: Fault) -> PgEndpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = format!("{}/.s.PGSQL.{}", backend.host(), backend.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (to, fault) = (to.clone(), fault.clone());
            tokio::spawn(async move {
                let server = UnixStream::connect(to).await.unwrap();
                serve(client, server, fault).await;
            });
        }
    });
    let password = Secret::new(String::new());
    PgEndpoint::loopback(port, backend.user(), &password, backend.database())
}

async fn serve(mut client: TcpStream, mut server: UnixStream, fault: Fault) {
    let mut startup = read_startup(&mut client).await;
    if matches!(fault, Fault::OptionsDropped) {
        startup = without_options(&startup);
    }
    server.write_all(&startup).await.unwrap();
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    let (mut deaf, mut silent) = (false, false);
    loop {
        tokio::select! {
            count = client.read(&mut up) => match count {
                Ok(count @ 1..) => {
                    let is_commit = up[..count].windows(7).any(|text| text == b"commit\0");
                    deaf |= matches!(fault, Fault::CommitReplyLost) && is_commit;
                    if server.write_all(&up[..count]).await.is_err() { return }
                }
                _ => return,
            },
            count = server.read(&mut down) => match count {
                // The server has answered, so it has committed.
                Ok(1..) if deaf => return,
                Ok(count @ 1..) => match trouble(&fault) {
                    Some(Trouble::Reset) => {
                        client.set_zero_linger().unwrap();
                        return;
                    }
                    Some(Trouble::Silence) => silent = true,
                    Some(Trouble::HalfClosed) => {
                        drop(client.shutdown().await);
                        silent = true;
                    }
                    Some(Trouble::Slow) => {
                        for byte in &down[..count] {
                            if client.write_all(&[*byte]).await.is_err() { return }
                            tokio::task::yield_now().await;
                        }
                    }
                    None if silent => {}
                    None => if client.write_all(&down[..count]).await.is_err() { return },
                }
                _ => return,
            },
        }
    }
}

/// What happens to this piece.
fn trouble(fault: &Fault) -> Option<Trouble> {
    let Fault::Piece(pieces, nth, trouble) = fault else { return None };
    (pieces.fetch_add(1, Ordering::SeqCst) + 1 == *nth).then_some(*trouble)
}

async fn read_startup(client: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await.unwrap();
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap();
    let mut rest = vec![0; length - 4];
    client.read_exact(&mut rest).await.unwrap();
    [head.to_vec(), rest].concat()
}

fn without_options(startup: &[u8]) -> Vec<u8> {
    let (protocol, parameters) = startup[4..].split_at(4);
    let texts: Vec<&[u8]> = parameters.split(|byte| *byte == 0).collect();
    let mut body = protocol.to_vec();
    for pair in texts.chunks_exact(2).filter(|pair| !pair[0].is_empty() && pair[0] != b"options") {
        body.extend([pair[0], b"\0", pair[1], b"\0"].concat());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [length.to_vec(), body].concat()
}
