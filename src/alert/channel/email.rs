//! Mail, by SMTP with STARTTLS. See `smtp.rs`; a crate for mail would bring its own forms of what is here.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::smtp::Submission;
use super::{Channel, Message, plain, shorten, word};
use crate::config::alerts::ChannelEntry;
use crate::kernel::{BoxFuture, Digest, Failure, Secret};

/// The port of mail submission (RFC 6409).
const PORT: u16 = 587;

/// A mail server.
pub struct Email {
    submission: Submission,
    from: String,
    to: Vec<String>,
}

impl Email {
    /// Sends through the server of an entry; the password belongs to its user. `ca` is the certificate that
    /// it is trusted by beside those of the system.
    pub fn new(
        entry: &ChannelEntry,
        password: Option<Secret<String>>,
        ca: Option<&[u8]>,
    ) -> Result<Self, String> {
        let address = |text: &str| {
            let inner =
                text.rsplit_once('<').map_or(text, |(_, inner)| inner.trim_end_matches('>'));
            let inner = inner.trim();
            let is_plain = inner.chars().all(|c| c.is_ascii_graphic() && !"<>\"".contains(c));
            match inner.split_once('@') {
                Some((user, host)) if is_plain && !user.is_empty() && !host.is_empty() => {
                    Ok(inner.to_owned())
                }
                _ => Err(format!("`{text}` is no mail address")),
            }
        };
        let tls = if entry.plain { None } else { Some(Arc::new(trust(ca)?)) };
        let submission = Submission {
            host: entry.host.clone().unwrap_or_default(),
            port: entry.port.unwrap_or(PORT),
            tls,
            login: entry.user.clone().zip(password),
        };
        let from = address(entry.from.as_deref().unwrap_or_default())?;
        let to = entry.to.iter().map(|one| address(one)).collect::<Result<_, _>>()?;
        Ok(Self { submission, from, to })
    }

    /// The mail as it is sent: headers in ASCII, the text in Base64, so that no line is too long and none
    /// begins with a full stop.
    fn mail(&self, messages: &[Message]) -> String {
        let text = messages.iter().map(plain).collect::<Vec<_>>().join("\n");
        let body = STANDARD.encode(text.replace('\n', "\r\n"));
        let lines: Vec<&str> =
            body.as_bytes().chunks(76).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let at = messages.first().map(|message| message.at).unwrap_or_default();
        let keys: Vec<String> =
            messages.iter().map(|message| format!("{} {}", message.dedup, message.at)).collect();
        // The same messages have the same id: who gets them twice can tell.
        let id = Digest::of_bytes(keys.join("\n").as_bytes());
        format!(
            "From: lakeops <{}>\r\nTo: {}\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: <{}@lakeops>\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{}",
            self.from,
            self.to.join(", "),
            subject(messages),
            at.to_datetime().to_rfc2822(),
            id.short(),
            lines.join("\r\n"),
        )
    }
}

/// Who is trusted: what the system trusts, and `ca`.
fn trust(ca: Option<&[u8]>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in ca.into_iter().flat_map(CertificateDer::pem_slice_iter) {
        let certificate = certificate.map_err(|error| format!("`ca_file`: {error}"))?;
        roots.add(certificate).map_err(|error| format!("`ca_file`: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

impl Channel for Email {
    fn send<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let sent = self.submission.send(&self.from, &self.to, &self.mail(messages)).await;
            sent.map_err(|error| Failure::transient("alert::not_taken", error.to_string()))
        })
    }
}

/// The subject, as an encoded word (RFC 2047) where it is not plain.
fn subject(messages: &[Message]) -> String {
    let worst = messages.iter().max_by_key(|message| (!message.resolves, message.severity));
    let first = worst.map_or_else(String::new, |message| {
        format!("[lakeops] {}: {}", word(message.severity, message.resolves), message.title)
    });
    let rest = messages.len().saturating_sub(1);
    let text = if rest == 0 { first } else { format!("{first} (and {rest} more)") };
    let text = shorten(&text.replace(['\r', '\n'], " "), 120);
    if text.is_ascii() {
        return text;
    }
    // An encoded word has 75 characters at most: 15 characters of four bytes fit.
    let chars: Vec<char> = text.chars().collect();
    let words = chars.chunks(10).map(|part| {
        let part: String = part.iter().collect();
        format!("=?utf-8?B?{}?=", STANDARD.encode(part))
    });
    words.collect::<Vec<_>>().join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_subject_is_plain_or_encoded() {
        let mut message = example();
        assert_eq!(
            subject(&[message.clone()]),
            "[lakeops] WARNING: run r1 waits for an approval of `heal`"
        );
        message.title = "Zähler läuft über\r\nBcc: x@y".to_owned();
        let encoded = subject(&[message]);
        assert!(encoded.is_ascii() && !encoded.contains("\r\nBcc"), "{encoded}");
        assert!(encoded.lines().all(|line| line.trim().len() <= 75), "{encoded}");
    }
}
