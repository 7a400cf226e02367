//! Alerts on their way to receivers that are down, slow, or say no.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use lakeops::alert::Message;
use lakeops::alert::channel::Channel as _;
use lakeops::alert::channel::email::Email;
use lakeops::alert::channel::webhook;
use lakeops::config::ChannelEntry;
use lakeops::journal::Event;
use lakeops::kernel::{Secret, Severity, Timestamp};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::{Served, entries, project, until};

/// A request that a receiver took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    headers: Vec<String>,
    pub(super) body: String,
}

/// A receiver that first does not take so many requests: it answers 500, or not in time.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) address: String,
    pub(super) refuses: Arc<AtomicU64>,
    slow: bool,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Receiver {
    pub(super) fn at(address: &str, refuses: u64, slow: bool) -> Self {
        Self::on(TcpListener::bind(address).unwrap(), refuses, slow)
    }

    fn on(listener: TcpListener, refuses: u64, slow: bool) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let refuses = Arc::new(AtomicU64::new(refuses));
        let receiver = Self { address, refuses, slow, taken: Arc::default() };
        let own = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let own = own.clone();
                std::thread::spawn(move || own.answer(stream.unwrap()));
            }
        });
        receiver
    }

    fn answer(&self, stream: std::net::TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            headers.push(line.trim().to_owned());
        }
        let length = headers
            .iter()
            .find_map(|h| h.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).unwrap();
        let refuses =
            self.refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if refuses.is_ok() && self.slow {
            // The sender hangs up first.
            drop(reader.read_to_end(&mut Vec::new()));
            return;
        }
        let status = if refuses.is_ok() { "500 No" } else { "202 Accepted" };
        if refuses.is_err() {
            let body = String::from_utf8_lossy(&body).into_owned();
            self.taken.lock().unwrap().push(Taken { headers, body });
        }
        // The sender may have given up.
        drop(write!(
            reader.get_mut(),
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ));
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }
}

/// An address at which nobody listens yet, and which nobody else can take meanwhile.
struct Down(TcpSocket);

impl Down {
    fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn up(self) -> Receiver {
        let listener = self.0.listen(64).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        Receiver::on(listener, 0, false)
    }
}

const TELL: &str = "version: 1\nname: tell\ndescription: Tell people.\nparams:\n  text: { type: string, default: \
    fine }\n  over: { type: boolean, default: false }\nsteps:\n  - id: tell\n    tool: send_alert\n    with:\n      \
    severity: critical\n      title: \"locks pile up\"\n      body: \"${{ params.text }}\"\n      key: locks\n      \
    labels: { metric: lock_wait }\n      resolves: \"${{ params.over }}\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn no_alert_is_lost_and_none_is_told_again() {
    let project = project("serve_alerts", "").await;
    project.write("workflows/tell.yaml", TELL);
    // Nobody takes anything until the first server is dead, and nobody listens at the last address.
    let hook = Receiver::at("127.0.0.1:0", u64::MAX, false);
    let chat = Receiver::at("127.0.0.1:0", u64::MAX, true);
    let down = Down::new();
    let secret = "do-not-tell-anybody";
    let config = format!(
        "{}\n[secrets.HOOK]\nenv = \"HOOK\"\n[secrets.CHAT]\nenv = \"CHAT\"\n[secrets.PAGER]\nenv = \"PAGER\"\n\
         [channels.hook]\nkind = \"webhook\"\nurl = \"http://{}/in\"\nsecret = \"HOOK\"\n\
         [channels.chat]\nkind = \"slack\"\nsecret = \"CHAT\"\n\
         [channels.pager]\nkind = \"pagerduty\"\nurl = \"http://{}/v2\"\nsecret = \"PAGER\"\n",
        super::CONFIG,
        hook.address,
        down.address()
    );
    project.write(".config/lakeops.toml", &config);
    let chat_url = format!("http://{}/services/T0/{secret}", chat.address);
    let variables =
        [("HOOK", "hook-key-0123"), ("CHAT", chat_url.as_str()), ("PAGER", "routing-key-0123")];
    let run = |args: &[&str]| {
        let mut command = project.command(&[&["run", "tell"], args].concat());
        command.envs(variables).env("API_TOKEN", super::TOKEN);
        assert!(command.status().unwrap().success());
    };
    let failed = |served: &Served, channel: &str| {
        let name = format!("lakeops_alerts_total{{channel=\"{channel}\",taken=\"false\"}}");
        served.try_metric(&name).unwrap_or(0) > 0
    };
    tokio::task::block_in_place(|| {
        let served = Served::start(&project, &variables);
        let text = "text=statement select 'personal data' where id = 4711; hook-key-0123";
        run(&["-p", text]);
        assert!(until(|| ["hook", "chat", "pager"].iter().all(|name| failed(&served, name))));
        served.end(Signal::SIGKILL);
        hook.refuses.store(1, Ordering::SeqCst);
        chat.refuses.store(0, Ordering::SeqCst);
        let pager = down.up();
        let served = Served::start(&project, &variables);
        let all = [&hook, &chat, &pager];
        assert!(until(|| all.iter().all(|receiver| !receiver.taken().is_empty())));
        assert!(until(|| served.metric("lakeops_alerts_waiting") == 0));
        // The same again is told to nobody, its end to all.
        run(&[]);
        run(&["-p", "over=true"]);
        assert!(until(|| all.iter().all(|receiver| receiver.taken().len() == 2)));
        served.end(Signal::SIGTERM);
        for taken in all.iter().flat_map(|receiver| receiver.taken()) {
            for word in ["personal", "4711", "hook-key", secret] {
                assert!(!taken.body.contains(word), "{word}: {}", taken.body);
            }
        }
        let signed = &hook.taken()[0];
        let header = |name: &str| {
            let found = signed
                .headers
                .iter()
                .find_map(|h| h.to_lowercase().strip_prefix(name).map(str::to_owned));
            found.unwrap_or_else(|| panic!("{name}: {:?}", signed.headers))
        };
        let expected =
            webhook::signature("hook-key-0123", &header("x-lakeops-timestamp: "), &signed.body)
                .unwrap();
        assert_eq!(header("x-lakeops-signature: "), format!("sha256={expected}"));
        let events: Vec<Value> =
            pager.taken().iter().map(|taken| serde_json::from_str(&taken.body).unwrap()).collect();
        let told: Vec<_> = events.iter().map(|e| (&e["event_action"], &e["dedup_key"])).collect();
        assert_eq!(
            told,
            [(&json!("trigger"), &json!("locks")), (&json!("resolve"), &json!("locks"))]
        );
    });
    let failures = format!("{:?}", entries(&project, &["alerts_failed"]).await);
    assert!(failures.contains("500") && failures.contains("longer than"), "{failures}");
    assert!(!failures.contains(secret), "{failures}");
    let mut sent = Vec::new();
    for entry in entries(&project, &["alerts_sent"]).await {
        let Event::AlertsSent { channel, routed } = entry.event else { panic!() };
        sent.extend(routed.into_iter().map(|position| (channel.clone(), position)));
    }
    let count = sent.len();
    sent.sort();
    sent.dedup();
    assert_eq!(
        (sent.len(), count),
        (6, 6),
        "three channels, a beginning and an end, each counted once"
    );
}

/// A mail server that takes one mail; without `tls` it does not offer STARTTLS.
async fn mail_server(
    tls: Option<tokio_rustls::TlsAcceptor>,
    listener: tokio::net::TcpListener,
) -> String {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = tokio::io::BufStream::new(stream);
    stream.write_all(b"220 mail ESMTP\r\n").await.unwrap();
    let mut line = String::new();
    loop {
        stream.flush().await.unwrap();
        line.clear();
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return String::new();
        }
        match (line.trim(), &tls) {
            (hello, None) if hello.starts_with("EHLO") => {
                stream.write_all(b"250 mail\r\n").await.unwrap();
            }
            (hello, Some(_)) if hello.starts_with("EHLO") => {
                stream.write_all(b"250-mail\r\n250 STARTTLS\r\n").await.unwrap();
            }
            ("STARTTLS", Some(tls)) => {
                stream.write_all(b"220 go on\r\n").await.unwrap();
                stream.flush().await.unwrap();
                let inner = tls.accept(stream.into_inner()).await.unwrap();
                return take_mail(tokio::io::BufStream::new(inner)).await;
            }
            ("QUIT", _) => return String::new(),
            _ => stream.write_all(b"502 no\r\n").await.unwrap(),
        }
    }
}

async fn take_mail<S>(mut stream: tokio::io::BufStream<S>) -> String
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut line, mut mail, mut in_data) = (String::new(), String::new(), false);
    loop {
        stream.flush().await.unwrap();
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return mail;
        }
        let answer: &[u8] = match line.trim() {
            "." if in_data => {
                in_data = false;
                b"250 taken\r\n"
            }
            _ if in_data => {
                mail.push_str(&line);
                b""
            }
            "DATA" => {
                in_data = true;
                b"354 go on\r\n"
            }
            hello if hello.starts_with("EHLO") => b"250-mail\r\n250 AUTH PLAIN\r\n",
            auth if auth.starts_with("AUTH PLAIN") => {
                mail.push_str("authenticated\n");
                b"235 fine\r\n"
            }
            _ => b"250 fine\r\n",
        };
        stream.write_all(answer).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_goes_encrypted_or_not_at_all() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let message = Message {
        dedup: "k".to_owned(),
        severity: Severity::Critical,
        resolves: false,
        title: "locks pile up".to_owned(),
        body: "since noon".to_owned(),
        labels: [("run".to_owned(), "r1".to_owned())].into(),
        at: Timestamp::from_millis(0),
    };
    for tls in [Some(tls), None] {
        let is_encrypted = tls.is_some();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let entry: ChannelEntry = serde_json::from_value(json!({
            "kind": "email", "host": "localhost", "port": listener.local_addr().unwrap().port(),
            "from": "lakeops <ops@example.org>", "to": ["oncall@example.org"], "user": "ops",
        }))
        .unwrap();
        let server = tokio::spawn(mail_server(tls, listener));
        let password = Some(Secret::new("mail-password".to_owned()));
        let ca = made.cert.pem();
        let email = Email::new(&entry, password, Some(ca.as_bytes())).unwrap();
        let sent = email.send(std::slice::from_ref(&message)).await;
        assert_eq!(sent.is_ok(), is_encrypted, "{sent:?}");
        drop(email);
        let mail = server.await.unwrap();
        if is_encrypted {
            let subject = "Subject: [lakeops] CRITICAL: locks pile up";
            let (_, body) = mail.split_once("\r\n\r\n").unwrap();
            let body: String = body.split_whitespace().collect();
            let body = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, body);
            let text = format!("{mail}{}", String::from_utf8(body.unwrap()).unwrap());
            for part in ["authenticated", subject, "since noon", "lakeops show r1"] {
                assert!(text.contains(part), "{part}: {text}");
            }
        } else {
            assert_eq!(mail, "", "nothing goes in clear");
        }
    }
}
