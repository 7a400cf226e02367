//! The few messages of PostgreSQL's protocol that are read and written at login.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const PROTOCOL: u32 = 3 << 16;
const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
/// No first message is longer; the server has the same limit.
const LONGEST_OPENING: usize = 10_000;
/// No message before the end of a login is longer.
const LONGEST_MESSAGE: usize = 1 << 20;

/// Process id and secret of a session: what a cancel request has to name.
pub(super) type CancelKey = [u8; 8];

/// What a client begins with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It asks for TLS.
    Tls,
    /// It asks for GSSAPI encryption.
    Gss,
    /// It asks to cancel what another session does.
    Cancel(CancelKey),
    /// It wants to log in.
    Startup(Startup),
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Startup {
    /// The minor version of protocol 3.
    minor: u32,
    parameters: Vec<(String, String)>,
    /// Options of the protocol itself, none of which we know.
    unknown: Vec<String>,
}

/// A message after the first: its kind and its content.
pub(super) struct Message {
    pub kind: u8,
    pub body: Vec<u8>,
}

/// An error that ends the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub sqlstate: &'static str,
    pub message: String,
}

impl Refusal {
    pub(super) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, message: message.into() }
    }

    /// The message for the client.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let fields =
            [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', self.sqlstate), (b'M', &self.message)];
        for (field, text) in fields {
            body.push(field);
            put_text(&mut body, text);
        }
        body.push(0);
        message(b'E', &body)
    }
}

impl Startup {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The role that logs in.
    pub(super) fn role(&self) -> &str {
        self.parameter("user").unwrap_or_default()
    }

    /// The database: like the server, the role's name where none is given.
    pub(super) fn database(&self) -> &str {
        self.parameter("database").filter(|name| !name.is_empty()).unwrap_or_else(|| self.role())
    }

    /// What the client has to hear first, when it asked for more than we speak.
    pub(super) fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor == 0 && self.unknown.is_empty() {
            return None;
        }
        let mut body = Vec::new();
        body.extend(0_u32.to_be_bytes());
        body.extend(u32::try_from(self.unknown.len()).unwrap_or(0).to_be_bytes());
        self.unknown.iter().for_each(|name| put_text(&mut body, name));
        Some(message(b'v', &body))
    }

    /// The login as it goes on to the server.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for (name, value) in &self.parameters {
            put_text(&mut body, name);
            put_text(&mut body, value);
        }
        body.push(0);
        framed(&body)
    }

    fn read(code: u32, body: &[u8]) -> io::Result<Self> {
        if code >> 16 != 3 {
            return Err(malformed("the protocol's version is not 3"));
        }
        let text = std::str::from_utf8(body).map_err(|_| malformed("a parameter is not UTF-8"))?;
        let mut parts = text.split('\0');
        let (mut parameters, mut unknown) = (Vec::new(), Vec::new());
        while let Some(name) = parts.next().filter(|name| !name.is_empty()) {
            let value = parts.next().ok_or_else(|| malformed("a parameter has no value"))?;
            if name.starts_with("_pq_.") {
                unknown.push(name.to_owned());
            } else {
                parameters.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Self { minor: code & 0xffff, parameters, unknown })
    }
}

/// Reads what a client begins with; `None` when it has gone away without a word.
pub(super) async fn opening(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Opening>> {
    let length = match stream.read_u32().await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => usize::try_from(other?).unwrap_or(usize::MAX),
    };
    if !(8..=LONGEST_OPENING).contains(&length) {
        return Err(malformed("the first message has no possible length"));
    }
    let code = stream.read_u32().await?;
    let mut body = vec![0_u8; length - 8];
    stream.read_exact(&mut body).await?;
    Ok(Some(match code {
        TLS => Opening::Tls,
        GSS => Opening::Gss,
        CANCEL => Opening::Cancel(
            body.try_into().map_err(|_| malformed("a cancel request has no possible length"))?,
        ),
        code => Opening::Startup(Startup::read(code, &body)?),
    }))
}

/// Reads a message after the first.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let kind = stream.read_u8().await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if !(4..=LONGEST_MESSAGE).contains(&length) {
        return Err(malformed("a message has no possible length"));
    }
    let mut body = vec![0_u8; length - 4];
    stream.read_exact(&mut body).await?;
    Ok(Message { kind, body })
}

impl Message {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        message(self.kind, &self.body)
    }

    /// The text of a password message.
    pub(super) fn password(&self) -> Option<&str> {
        let text = self.body.strip_suffix(&[0]).filter(|_| self.kind == b'p')?;
        std::str::from_utf8(text).ok()
    }

    /// The name and value of a setting that the server reports.
    pub(super) fn setting(&self) -> Option<(&str, &str)> {
        let text = std::str::from_utf8(&self.body).ok().filter(|_| self.kind == b'S')?;
        let (name, rest) = text.split_once('\0')?;
        Some((name, rest.trim_end_matches('\0')))
    }

    /// What a cancel request for this session has to name.
    pub(super) fn cancel_key(&self) -> Option<CancelKey> {
        self.body.as_slice().try_into().ok().filter(|_| self.kind == b'K')
    }
}

/// Asks for the password, in clear: only ever sent inside TLS.
pub(super) fn password_request() -> Vec<u8> {
    message(b'R', &3_u32.to_be_bytes())
}

/// A cancel request.
pub(super) fn cancel_request(key: CancelKey) -> Vec<u8> {
    let mut body = CANCEL.to_be_bytes().to_vec();
    body.extend(key);
    framed(&body)
}

/// Sends bytes at once.
pub(super) async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(framed(body));
    bytes
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len().saturating_add(4)).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes().filter(|byte| *byte != 0));
    body.push(0);
}

fn malformed(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Option<Opening>> {
        opening(&mut &bytes[..]).await
    }

    fn startup(code: u32, text: &str) -> Vec<u8> {
        framed(&[&code.to_be_bytes()[..], text.as_bytes()].concat())
    }

    #[tokio::test]
    async fn a_login_is_read_and_passed_on() {
        let sent = startup(PROTOCOL, "user\0ann\0application_name\0x y\0\0");
        let Some(Opening::Startup(login)) = read(&sent).await.unwrap() else { panic!() };
        assert_eq!((login.role(), login.database()), ("ann", "ann"));
        assert_eq!(login.negotiation(), None);
        assert_eq!(login.to_bytes(), sent);
    }

    #[tokio::test]
    async fn a_newer_protocol_is_negotiated_down() {
        let sent = startup(PROTOCOL | 2, "user\0ann\0_pq_.extra\0on\0database\0d\0\0");
        let Some(Opening::Startup(login)) = read(&sent).await.unwrap() else { panic!() };
        assert_eq!(login.database(), "d");
        let heard = login.negotiation().unwrap();
        assert_eq!(heard[0], b'v');
        assert!(heard.ends_with(b"\0\0\0\x01_pq_.extra\0"));
        assert_eq!(login.to_bytes(), startup(PROTOCOL, "user\0ann\0database\0d\0\0"));
    }

    #[tokio::test]
    async fn requests_without_a_login() {
        let key = *b"abcdefgh";
        assert_eq!(read(&cancel_request(key)).await.unwrap(), Some(Opening::Cancel(key)));
        assert_eq!(read(&startup(TLS, "")).await.unwrap(), Some(Opening::Tls));
        assert_eq!(read(&startup(GSS, "")).await.unwrap(), Some(Opening::Gss));
        assert_eq!(read(b"").await.unwrap(), None);
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        let long = [&u32::MAX.to_be_bytes()[..], &[0; 64]].concat();
        let cancel = startup(CANCEL, "short");
        let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        for bytes in [long, cancel, http, startup(PROTOCOL, "user\0"), startup(2 << 16, "x\0")] {
            let answer = read(&bytes).await;
            let harmless =
                matches!(&answer, Ok(Some(Opening::Startup(login))) if login.role().is_empty());
            assert!(answer.is_err() || harmless, "{answer:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            drop(runtime.block_on(read(&bytes)));
            drop(runtime.block_on(async { receive(&mut &bytes[..]).await }));
        }
    }
}
