//! From a target to a database: states, passwords, identities.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lakeops::config::Settings;
use lakeops::config::settings::Limits;
use lakeops::emulator::fleet::{
    BranchId, ComputeState, EndpointId, EndpointSettings, Fleet, FleetOptions, LoginDecision,
    LoginRequest, Logins,
};
use lakeops::kernel::{BoxFuture, RandomIds, SystemClock, Target};
use lakeops::lakebase::Lakebase;
use lakeops::postgres::{PgError, PgReader, PgWriter, Quiet, ServerFacts, WriterSetup};
use lakeops::tools::tool::ToolOutput;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};

use super::stand_in::{Said, Seen, StandIn, ok, refused};
use super::{TOKEN, World};
use crate::harness::Place;

const ANN: &str = "ann@example.com";
const BRANCH: &str = "/api/2.0/postgres/projects/shop/branches/dev";

/// Knows the passwords that were minted, each of them only from the second look on when it is `slow`.
#[derive(Default)]
struct Minted {
    known: Mutex<BTreeMap<String, u32>>,
    slow: AtomicU32,
    logins: AtomicU32,
}

impl Logins for Minted {
    fn check<'a>(&'a self, login: LoginRequest<'a>) -> BoxFuture<'a, LoginDecision> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        let waits = self.slow.load(Ordering::SeqCst);
        let is_slow = waits > 0;
        if is_slow {
            self.slow.store(waits - 1, Ordering::SeqCst);
        }
        let is_known = self.known.lock().unwrap().contains_key(login.secret);
        let decision = if is_known && !is_slow {
            LoginDecision::Allowed { read_only: false }
        } else {
            LoginDecision::Refused { message: "password authentication failed".to_owned() }
        };
        Box::pin(async move { decision })
    }
}

/// A branch on a real server behind a workspace that is a stand-in.
struct Shop {
    fleet: Arc<Fleet>,
    endpoint: EndpointId,
    logins: Arc<Minted>,
    stand_in: StandIn,
    world: World,
    lakebase: Lakebase,
    _place: Place,
}

impl Shop {
    async fn new(name: &str) -> Self {
        let place = Place::new();
        let logins = Arc::new(Minted::default());
        let options = FleetOptions {
            state_dir: place.state(),
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            local_postgres: place.local.clone(),
            logins: Arc::<Minted>::clone(&logins),
            progress: Arc::new(Quiet),
        };
        let fleet = Box::pin(Fleet::open(options)).await.unwrap();
        let branch = BranchId("br-dev".to_owned());
        Box::pin(fleet.create_root(&branch, 17)).await.unwrap();
        let mut admin = Box::pin(fleet.admin(&branch, "postgres")).await.unwrap();
        let set_up = format!(
            "create role \"{ANN}\" login; create database databricks_postgres owner \"{ANN}\""
        );
        for statement in set_up.split("; ") {
            Box::pin(admin.run("test", statement)).await.unwrap();
        }
        admin.close().await;
        let endpoint = EndpointId(format!("ep-{name}-{}", std::process::id()));
        let settings = EndpointSettings {
            id: endpoint.clone(),
            branch,
            read_only: false,
            max_connections: 20,
            suspend_after: None,
            disabled: false,
            pg_settings: BTreeMap::new(),
        };
        Box::pin(fleet.open_endpoint(settings)).await.unwrap();
        let stand_in = {
            let (fleet, endpoint) = (Arc::clone(&fleet), endpoint.clone());
            let logins = Arc::clone(&logins);
            StandIn::new(move |seen| answer(seen, &fleet, &endpoint, &logins)).await
        };
        let world = World::new(&stand_in.host);
        let ca_file = place.base.path().join("ca.pem");
        std::fs::write(&ca_file, fleet.ca_pem()).unwrap();
        let client = Arc::clone(&world.client);
        let lakebase = Lakebase::new(client, None, Some(ca_file), &Limits::default());
        Self { fleet, endpoint, logins, stand_in, world, lakebase, _place: place }
    }

    fn state(&self) -> ComputeState {
        self.fleet.endpoint_facts(&self.endpoint).unwrap().state
    }

    fn mints(&self) -> usize {
        self.stand_in.lines().iter().filter(|line| line.ends_with("/credentials")).count()
    }

    async fn close(self) {
        Box::pin(self.fleet.shutdown()).await.unwrap();
    }
}

fn answer(seen: &Seen, fleet: &Fleet, id: &EndpointId, logins: &Minted) -> Said {
    let facts = fleet.endpoint_facts(id).unwrap();
    let state = match facts.state {
        ComputeState::Init => "INIT",
        ComputeState::Active => "ACTIVE",
        ComputeState::Idle => "IDLE",
    };
    match seen.path.strip_prefix(BRANCH) {
        Some("") => ok(json!({"uid": "br-uid", "status": {"current_state": "READY"}})),
        Some("/endpoints") => ok(json!({"endpoints": [{
            "name": "projects/shop/branches/dev/endpoints/primary", "uid": id.0,
            "status": {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE", "current_state": state,
                "hosts": {"host": facts.address.host, "port": facts.address.port}},
        }]})),
        _ if seen.path.ends_with("/credentials") => {
            let token = format!("minted-password-{}", seen.earlier);
            logins.known.lock().unwrap().insert(token.clone(), 0);
            // The client's clock may be ahead of ours.
            ok(json!({"token": token, "expire_time": "2200-01-01T00:00:00Z"}))
        }
        _ if seen.path.ends_with("/Me") => ok(json!({"userName": ANN})),
        _ => refused(404, "NOT_FOUND", "nothing there"),
    }
}

fn dev() -> Target {
    Target { project: Some("shop".into()), branch: Some("dev".into()), database: None }
}

#[tokio::test]
async fn a_suspended_compute_sleeps_on_unless_it_may_be_woken() {
    let shop = Shop::new("wake").await;
    Box::pin(shop.fleet.suspend(&shop.endpoint)).await.unwrap();
    let refused = shop.lakebase.endpoint(&dev(), false).await.unwrap_err();
    assert_eq!(refused.code, "lakebase::suspended");
    assert!(refused.help.unwrap().contains("wake"));
    assert_eq!((shop.state(), shop.mints()), (ComputeState::Idle, 0));

    let endpoint = shop.lakebase.endpoint(&dev(), true).await.unwrap();
    assert_eq!(shop.state(), ComputeState::Active, "it is awake before anybody uses it");
    assert_eq!((endpoint.user(), endpoint.database()), (ANN, "databricks_postgres"));

    // Branches are copies: only the workspace can tell them apart.
    let reader = PgReader::new(endpoint.clone(), &Limits::default(), "lakeops:test");
    let facts = reader.server().await.unwrap();
    reader.close().await;
    assert_eq!(facts.branch_uid.as_deref(), Some("br-uid"));
    assert_eq!(facts.endpoint_uid.as_deref(), Some(shop.endpoint.0.as_str()));
    let before = ServerFacts { endpoint_uid: Some("ep-before-the-reset".into()), ..facts.clone() };
    for (expected, is_right) in [(facts, true), (before, false)] {
        let limits = Limits::default();
        let setup = WriterSetup {
            application_name: "lakeops:test",
            run: "0000000000000001",
            statement_timeout: Duration::from_secs(10),
            lock_timeout: Duration::from_secs(1),
            limits: &limits,
            expected: Some(&expected),
        };
        match PgWriter::connect(&endpoint, &setup).await {
            Ok(writer) => {
                assert!(is_right);
                writer.close().await;
            }
            Err(PgError::WrongPlace { why, .. }) => {
                assert!(!is_right && why.contains("ep-before-the-reset"), "{why}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    shop.close().await;
}

/// One tick of a collection on what the target leads to now.
async fn tick(shop: &Shop, earlier: &[Value], suspend_after: &str) -> ToolOutput {
    let reader = match shop.lakebase.endpoint(&dev(), false).await {
        Ok(endpoint) => PgReader::new(endpoint, &Limits::default(), "lakeops:test"),
        Err(failure) => PgReader::unavailable(failure),
    };
    let (settings, target) = (Settings::default(), dev());
    let cx = ReadContext {
        earlier,
        workspace: Some(&*shop.world.client),
        ..ReadContext::new(&reader, &SystemClock, &settings, &target)
    };
    let found = Catalog::builtin().find("persist_pg_stat_statements");
    let Some(AnyTool::Read(tool)) = found else { panic!() };
    let output = tool.read(&cx, json!({ "suspend_after": suspend_after })).await.unwrap();
    reader.close().await;
    output
}

#[tokio::test]
async fn a_collection_wakes_no_compute_and_lets_an_unused_one_fall_asleep() {
    let shop = Shop::new("collect").await;
    let branch = BranchId("br-dev".to_owned());
    let mut admin = Box::pin(shop.fleet.admin(&branch, "databricks_postgres")).await.unwrap();
    for statement in
        ["create extension pg_stat_statements", &format!("grant pg_read_all_stats to \"{ANN}\"")]
    {
        Box::pin(admin.run("test", statement)).await.unwrap();
    }
    admin.close().await;
    let mut first = tick(&shop, &[], "5m").await;
    assert_eq!(first.value["status"], "collected", "{}", first.value);
    assert!(!first.history.is_empty());

    // Nobody but us was active: who looks again too soon keeps the compute awake.
    first.value["others_active"] = json!(false);
    let left_alone = tick(&shop, &[first.earlier()], "5m").await;
    assert_eq!(left_alone.value["status"], "skipped", "{}", left_alone.value);
    assert!(left_alone.value["reason"].as_str().unwrap().contains("left alone until"));

    Box::pin(shop.fleet.suspend(&shop.endpoint)).await.unwrap();
    let asleep = tick(&shop, &[left_alone.earlier()], "0s").await;
    assert_eq!((&asleep.value["status"], asleep.history.len()), (&json!("skipped"), 0));
    assert_eq!(shop.state(), ComputeState::Idle, "it sleeps on");

    // What was counted before is gone: there is nothing to compare with.
    shop.lakebase.endpoint(&dev(), true).await.unwrap();
    let awake = tick(&shop, &[asleep.earlier()], "0s").await;
    assert_eq!(awake.value["status"], "collected", "{}", awake.value);
    assert_eq!(awake.value["window_seconds"], Value::Null);
    assert!(awake.history.iter().all(|row| row.row.get("calls_delta").is_none()));
    shop.close().await;
}

#[tokio::test]
async fn a_fresh_password_is_tried_until_the_compute_knows_it_and_then_kept() {
    let shop = Shop::new("login").await;
    shop.logins.slow.store(3, Ordering::SeqCst);
    shop.lakebase.endpoint(&dev(), false).await.unwrap();
    assert_eq!(shop.world.clock.waited(), [2, 4, 8]);
    assert_eq!(shop.mints(), 4, "each try with a new one");
    let logins = shop.logins.logins.load(Ordering::SeqCst);
    shop.lakebase.endpoint(&dev(), false).await.unwrap();
    assert_eq!(shop.mints(), 4);
    assert_eq!(shop.logins.logins.load(Ordering::SeqCst), logins, "it is known to work");

    shop.logins.slow.store(u32::MAX, Ordering::SeqCst);
    let other = Lakebase::new(Arc::clone(&shop.world.client), None, None, &Limits::default());
    let failure = other.endpoint(&dev(), false).await.unwrap_err();
    assert_eq!(failure.code, "postgres::authentication", "{failure}");
    let waited: u64 = shop.world.clock.waited()[3..].iter().sum();
    assert!((46..=60).contains(&waited), "{waited}");
    shop.close().await;
}

/// A workspace that is only a stand-in.
async fn workspace(status: Value) -> (StandIn, Lakebase) {
    let stand_in = StandIn::new(move |seen| match seen.path.strip_prefix(BRANCH) {
        Some("/endpoints") => ok(json!({"endpoints": [{
            "name": "projects/shop/branches/dev/endpoints/primary", "uid": "ep-1", "status": status,
        }]})),
        Some("") => ok(json!({"name": "projects/shop/branches/tmp-1", "status": {
            "source_branch": "projects/shop/branches/production",
            "expire_time": "2026-01-01T00:00:00Z"}})),
        _ if seen.path.ends_with("/projects/shop") => {
            ok(json!({"status": {"default_branch": "projects/shop/branches/dev"}}))
        }
        _ if seen.path.ends_with("/shop/branches") => ok(json!({"branches":
            [{"name": "projects/shop/branches/dev"}, {"name": "projects/shop/branches/main"}]})),
        _ => refused(404, "NOT_FOUND", "nothing there"),
    })
    .await;
    let world = World::with(&stand_in.host, &[("DATABRICKS_TOKEN", TOKEN)]);
    (stand_in, Lakebase::new(world.client, Some("shop".into()), None, &Limits::default()))
}

#[tokio::test]
async fn what_cannot_be_reached_says_why() {
    let kind = "ENDPOINT_TYPE_READ_WRITE";
    let status = |state: &str| json!({"endpoint_type": kind, "current_state": state});
    let code = async |status: Value, target: &Target, wake: bool| {
        let (_stand_in, lakebase) = workspace(status).await;
        lakebase.endpoint(target, wake).await.unwrap_err().code
    };
    // The connection's project and the project's default branch are meant.
    let default = Target::default();
    assert_eq!(code(status("IDLE"), &default, false).await, "lakebase::suspended");
    let disabled = json!({"endpoint_type": kind, "current_state": "IDLE", "disabled": true});
    assert_eq!(code(disabled, &default, true).await, "lakebase::compute_disabled");
    assert_eq!(code(status("DREAMING"), &default, false).await, "lakebase::compute_state");
    assert_eq!(code(status("INIT"), &default, false).await, "lakebase::not_started");
    let replica = json!({"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"});
    assert_eq!(code(replica, &default, true).await, "lakebase::no_compute");

    let (stand_in, lakebase) = workspace(status("IDLE")).await;
    let missing = Target { branch: Some("dex".into()), ..Target::default() };
    let failure = lakebase.endpoint(&missing, true).await.unwrap_err();
    assert_eq!(failure.help.as_deref(), Some("the project has: dev, main"));
    assert!(lakebase.throw_away(&dev()).await.unwrap());
    assert!(!lakebase.throw_away(&missing).await.unwrap());
    let world = World::new(&stand_in.host);
    let nowhere = Lakebase::new(world.client, None, None, &Limits::default());
    assert_eq!(nowhere.endpoint(&default, true).await.unwrap_err().code, "lakebase::no_target");
    assert_eq!(stand_in.lines().iter().filter(|line| line.starts_with("POST")).count(), 0);
}
