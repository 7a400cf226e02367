//! As much of SMTP as a submission needs: EHLO, STARTTLS (RFC 3207), AUTH PLAIN (RFC 4616), one mail (RFC 5321).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kernel::Secret;

/// A line of a server is no longer than this (RFC 5321 4.5.3.1.5, with room).
const LONGEST_LINE: u64 = 4_096;

/// How a mail server is reached.
pub(super) struct Submission {
    pub(super) host: String,
    pub(super) port: u16,
    /// `None`: without encryption.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    /// User and password.
    pub(super) login: Option<(String, Secret<String>)>,
}

/// Why a mail was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum SmtpError {
    /// The connection failed.
    #[error("the mail server cannot be reached: {0}")]
    Connection(#[from] std::io::Error),
    /// It said no.
    #[error("the mail server answered `{answer}` to {command}")]
    Refused {
        /// What was said; never the password.
        command: &'static str,
        /// What it answered.
        answer: String,
    },
    /// It offers no encryption: nothing is sent in clear.
    #[error("the mail server does not offer STARTTLS, and nothing is sent in clear")]
    NoStartTls,
    /// The name cannot be proved.
    #[error("`{0}` is no name that a server can prove")]
    Name(String),
}

impl Submission {
    /// Hands a mail over. When it returns the server has taken it.
    pub(super) async fn send(
        &self,
        from: &str,
        to: &[String],
        mail: &str,
    ) -> Result<(), SmtpError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let mut talk = Talk(BufStream::new(stream));
        talk.expect("the greeting", '2').await?;
        let offered = talk.say("EHLO", "EHLO lakeops", '2').await?;
        let Some(tls) = &self.tls else { return self.submit(talk, (from, to), mail).await };
        if !offered.iter().any(|line| line.to_ascii_uppercase().trim() == "STARTTLS") {
            return Err(SmtpError::NoStartTls);
        }
        talk.say("STARTTLS", "STARTTLS", '2').await?;
        let name = ServerName::try_from(self.host.clone());
        let name = name.map_err(|_| SmtpError::Name(self.host.clone()))?;
        // What was read ahead before the encryption is dropped: it is not from the server for sure.
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, talk.0.into_inner()).await?;
        let mut talk = Talk(BufStream::new(stream));
        talk.say("EHLO", "EHLO lakeops", '2').await?;
        self.submit(talk, (from, to), mail).await
    }

    async fn submit<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut talk: Talk<BufStream<S>>,
        (from, to): (&str, &[String]),
        mail: &str,
    ) -> Result<(), SmtpError> {
        if let Some((user, password)) = &self.login {
            let plain = STANDARD.encode(format!("\0{user}\0{}", password.expose()));
            talk.say("AUTH", &format!("AUTH PLAIN {plain}"), '2').await?;
        }
        talk.say("MAIL", &format!("MAIL FROM:<{from}>"), '2').await?;
        for to in to {
            talk.say("RCPT", &format!("RCPT TO:<{to}>"), '2').await?;
        }
        talk.say("DATA", "DATA", '3').await?;
        talk.say("the mail", &format!("{mail}\r\n."), '2').await?;
        // It is taken; how the server says good-bye does not matter.
        let _parted = talk.say("QUIT", "QUIT", '2').await;
        Ok(())
    }
}

/// Commands and answers, in turn.
struct Talk<S>(S);

impl<S: AsyncBufRead + AsyncWrite + Unpin> Talk<S> {
    async fn say(
        &mut self,
        command: &'static str,
        line: &str,
        wanted: char,
    ) -> Result<Vec<String>, SmtpError> {
        self.0.write_all(line.as_bytes()).await?;
        self.0.write_all(b"\r\n").await?;
        self.0.flush().await?;
        self.expect(command, wanted).await
    }

    /// The texts of an answer whose code begins as wanted.
    async fn expect(
        &mut self,
        command: &'static str,
        wanted: char,
    ) -> Result<Vec<String>, SmtpError> {
        use tokio::io::AsyncReadExt as _;
        let mut texts = Vec::new();
        loop {
            let mut line = String::new();
            let read = (&mut self.0).take(LONGEST_LINE).read_line(&mut line).await?;
            let line = line.trim_end();
            if read == 0 || !line.starts_with(wanted) {
                let answer = line.chars().take(200).collect();
                return Err(SmtpError::Refused { command, answer });
            }
            texts.push(line.get(4..).unwrap_or_default().to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(texts);
            }
        }
    }
}
