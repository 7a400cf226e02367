//! The emulator as its clients see it: over HTTP, and over PostgreSQL's protocol.

pub(crate) mod clients;
pub(crate) mod daemon;
mod faults;
mod life;
mod others;
mod recovery;
mod rehearsal;

use std::sync::Arc;
use std::time::Duration;

use lakeops::emulator::{Emulator, EmulatorOptions};
use lakeops::kernel::{Clock as _, RandomIds, SystemClock};
use lakeops::postgres::Quiet;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use crate::harness::Place;
use crate::harness::clock::TurnedClock;

/// An emulator, and a client of its API.
struct TestEmulator {
    emulator: Emulator,
    place: Place,
    client: reqwest::Client,
    /// What is to expire need not be waited for, and does not expire while the machine is busy.
    clock: Arc<TurnedClock>,
}

pub(super) fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}

impl TestEmulator {
    async fn start() -> Self {
        Self::start_in(Place::new()).await
    }

    async fn start_in(place: Place) -> Self {
        let clock = Arc::<TurnedClock>::default();
        let options = EmulatorOptions::new(
            place.state(),
            (Arc::<TurnedClock>::clone(&clock), Arc::new(RandomIds)),
            place.local.clone(),
            Arc::new(Quiet),
        );
        let emulator = Box::pin(Emulator::start(options)).await.unwrap();
        Self { emulator, place, client: client(), clock }
    }

    async fn stop(self) -> Place {
        Box::pin(self.emulator.stop()).await.unwrap();
        self.place
    }

    /// The status of a call's answer, and the answer.
    async fn call(&self, verb: &str, path: &str, body: Value) -> (u16, Value) {
        let token = self.emulator.token().expose().clone();
        let answer = self.send(verb, path, body, &token).await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }

    async fn send(
        &self,
        verb: &str,
        path: &str,
        body: Value,
        token: &str,
    ) -> reqwest::Result<reqwest::Response> {
        let base = if path.starts_with('/') { "" } else { "/api/2.0/postgres/" };
        let url = format!("{}{base}{path}", self.emulator.host());
        let request = self.client.request(verb.parse().unwrap(), url).bearer_auth(token);
        if verb == "GET" { request.send().await } else { request.json(&body).send().await }
    }

    /// The answer of a call that succeeds. An operation is over then, which is answered before that on a busy
    /// machine.
    async fn ok(&self, verb: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(verb, path, body).await;
        assert_eq!(status, 200, "{verb} {path}: {answer}");
        assert!(answer.get("error").is_none(), "{verb} {path}: {answer}");
        self.done(answer).await
    }

    async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, Value::Null).await
    }

    /// The status and code of a call that is refused.
    async fn refused(&self, verb: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(verb, path, body).await;
        assert_ne!(status, 200, "{verb} {path}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
        (status, answer["error_code"].as_str().unwrap().to_owned())
    }

    /// The end of an operation that succeeds; anything else as it is.
    async fn done(&self, found: Value) -> Value {
        let found = self.settled(found).await;
        assert!(found.get("error").is_none(), "{found}");
        found
    }

    /// The end of an operation, whatever it is; anything else as it is.
    async fn settled(&self, mut found: Value) -> Value {
        while found["done"] == false {
            let soon = SystemClock.now().plus(Duration::from_millis(100));
            SystemClock.sleep_until(soon).await;
            found = self.call("GET", found["name"].as_str().unwrap(), Value::Null).await.1;
        }
        found
    }

    /// A project with its first branch.
    async fn project(&self, id: &str) {
        self.ok("POST", &format!("projects?project_id={id}"), json!({})).await;
    }

    async fn branch(&self, project: &str, id: &str, spec: Value) -> Value {
        let path = format!("projects/{project}/branches?branch_id={id}");
        self.ok("POST", &path, json!({ "spec": spec })).await["response"].clone()
    }

    async fn token(&self, endpoint: &str, more: Value) -> String {
        let mut body = json!({ "endpoint": endpoint });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let made = self.ok("POST", "credentials", body).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// Connects as a client does: host, token and TLS.
    async fn connect(
        &self,
        endpoint: &str,
        (role, secret): (&str, &str),
        database: &str,
    ) -> Result<PgConnection, sqlx::Error> {
        let hosts = self.get(endpoint).await["status"]["hosts"].clone();
        let port = u16::try_from(hosts["port"].as_u64().unwrap_or(5432)).unwrap();
        let place = (hosts["host"].as_str().unwrap(), port);
        log_in(&self.emulator, place, (role, secret), database).await
    }

    /// A session of the owner, with a fresh token.
    async fn session(&self, branch: &str) -> PgConnection {
        let endpoint = format!("{branch}/endpoints/primary");
        let token = self.token(&endpoint, json!({})).await;
        let user = self.emulator.connection().user.clone();
        self.connect(&endpoint, (&user, &token), "databricks_postgres").await.unwrap()
    }
}

/// Connects to an endpoint as a client does: by its host, with a secret, over TLS.
pub(crate) async fn log_in(
    emulator: &Emulator,
    (host, port): (&str, u16),
    (role, secret): (&str, &str),
    database: &str,
) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(emulator.ca_pem().as_bytes().to_vec())
        .username(role)
        .password(secret)
        .database(database)
        .disable_statement_logging();
    PgConnection::connect_with(&options).await
}

async fn run(session: &mut PgConnection, text: &'static str) {
    sqlx::raw_sql(text).execute(session).await.unwrap();
}

async fn number(session: &mut PgConnection, text: &'static str) -> i64 {
    sqlx::query_scalar(text).fetch_one(session).await.unwrap()
}

fn sqlstate(error: &sqlx::Error) -> String {
    let database = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    database.code().unwrap().into_owned()
}
