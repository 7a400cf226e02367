//! A server of its own, and tools at work on it at any time.

use lakeops::config::Settings;
use lakeops::kernel::{BoxFuture, ChangeSet, Clock, Target, Timestamp};
use lakeops::model::ChatModel;
use lakeops::postgres::{Cluster, PgEndpoint, PgReader};
use lakeops::tools::tool::ToolOutput;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::Value;

use crate::harness::versions::{VERSIONS, server};
use crate::harness::{Place, alone, execute, until};

/// A server that nobody else uses: VACUUM has its effect, and counters are its own.
pub(super) struct Bench {
    cluster: Option<Cluster>,
    place: Option<Place>,
    pub(super) endpoint: PgEndpoint,
    pub(super) settings: Settings,
}

/// A clock that stands still.
struct At(Timestamp);

impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn sleep_until(&self, _deadline: Timestamp) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl Bench {
    /// A server with the fixture of traps in it.
    pub(super) async fn with_traps() -> Self {
        let bench = Self::start("traps").await;
        bench.set_traps().await;
        bench
    }

    pub(super) async fn start(name: &str) -> Self {
        let (place, cluster) = alone(name).await;
        Self::of(cluster, place)
    }

    /// A server of another version; `None` where it cannot be had.
    pub(super) async fn start_version(major: u32) -> Option<Self> {
        let (_, version) = VERSIONS.into_iter().find(|it| it.0 == major).unwrap();
        let place = Place::new();
        let cluster = server(version, &place.state()).await?;
        let bench = Self::of(cluster, place);
        execute(&bench.endpoint, &["alter system set autovacuum = off", "select pg_reload_conf()"])
            .await;
        Some(bench)
    }

    fn of(cluster: Cluster, place: Place) -> Self {
        let mut bench = Self::on(cluster.endpoint());
        (bench.cluster, bench.place) = (Some(cluster), Some(place));
        bench
    }

    /// Tools on a server that is there.
    pub(super) fn on(endpoint: PgEndpoint) -> Self {
        Self { cluster: None, place: None, endpoint, settings: Settings::default() }
    }

    pub(super) async fn set_traps(&self) {
        let traps = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/traps/indexes.sql");
        execute(&self.endpoint, &[&std::fs::read_to_string(traps).unwrap()]).await;
        execute(
            &self.endpoint,
            &[
                "vacuum analyze bl.fine",
                "delete from bl.worn where id % 4 <> 0",
                "vacuum analyze bl.worn",
            ],
        )
        .await;
    }

    /// Ends the server.
    pub(super) async fn stop(self) {
        if let Some(cluster) = self.cluster {
            cluster.stop().await.unwrap();
        }
        drop(self.place);
    }

    pub(super) async fn read(&self, tool: &str, arguments: Value) -> Value {
        self.read_at(tool, arguments, &[], now()).await.value
    }

    /// The same with a language model at hand.
    pub(super) async fn read_with(&self, model: &ChatModel, tool: &str, arguments: Value) -> Value {
        let reader = PgReader::new(self.endpoint.clone(), &self.settings.limits, "lakeops:test");
        let AnyTool::Read(found) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let (clock, nowhere) = (At(now()), Target::default());
        let context = ReadContext {
            model: Some(model),
            ..ReadContext::new(&reader, &clock, &self.settings, &nowhere)
        };
        let output = found.read(&context, arguments).await;
        reader.close().await;
        output.unwrap_or_else(|failure| panic!("{tool}: {failure:?}")).value
    }

    pub(super) async fn read_at(
        &self,
        tool: &str,
        arguments: Value,
        earlier: &[Value],
        at: Timestamp,
    ) -> ToolOutput {
        static NOWHERE: Target = Target { project: None, branch: None, database: None };
        let reader = PgReader::new(self.endpoint.clone(), &self.settings.limits, "lakeops:test");
        let AnyTool::Read(found) = Catalog::builtin().find(tool).unwrap() else { panic!("{tool}") };
        let clock = At(at);
        let context =
            ReadContext { earlier, ..ReadContext::new(&reader, &clock, &self.settings, &NOWHERE) };
        let output = found.read(&context, arguments).await;
        reader.close().await;
        output.unwrap_or_else(|failure| panic!("{tool}: {failure:?}"))
    }

    /// What a write tool would do.
    pub(super) async fn propose(&self, tool: &str, arguments: Value) -> ChangeSet {
        let reader = PgReader::new(self.endpoint.clone(), &self.settings.limits, "lakeops:test");
        let AnyTool::Write(found) = Catalog::builtin().find(tool).unwrap() else {
            panic!("{tool}")
        };
        let (clock, nowhere) = (At(now()), Target::default());
        let context = ReadContext::new(&reader, &clock, &self.settings, &nowhere);
        let set = found.propose(&context, arguments).await;
        reader.close().await;
        set.unwrap_or_else(|failure| panic!("{tool}: {failure:?}"))
    }

    /// Waits until a query says true.
    pub(super) async fn until(&self, query: &str) {
        until(&self.endpoint, query, std::time::Duration::from_mins(1)).await;
    }
}

pub(super) fn now() -> Timestamp {
    lakeops::kernel::SystemClock.now()
}

/// One field of each element of a list, sorted.
pub(super) fn sorted(list: &Value, field: &str) -> Vec<String> {
    let items = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    let mut found: Vec<_> =
        items.iter().map(|item| item[field].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}
