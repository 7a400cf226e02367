//! A real PostgreSQL for the tests, got and started by itself, also as root.
//!
//! One throw-away server for each test process: it stops when the process ends, however it ends, and
//! what it leaves on disk goes with the next test process. The programs are kept across runs.

pub(crate) mod clock;
pub(crate) mod crash;
pub(crate) mod disk;
pub(crate) mod model;
pub(crate) mod parts;
pub(crate) mod scratch;
pub(crate) mod versions;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lakeops::cli::demo::load::Load;
use lakeops::cli::demo::patient::Patient;
use lakeops::kernel::{Clock as _, Ident, RandomIds, Secret, SystemClock, Target, Timestamp};
use lakeops::postgres::{
    Cluster, ClusterOptions, Installation, LocalPostgres, PgEndpoint, PostgresError, Quiet,
    ServerOptions, ServerRecord,
};
use nix::time::{ClockId, clock_gettime};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// The server that all tests of this process share.
pub(crate) struct TestServer {
    cluster: Cluster,
    installation: Installation,
    databases: AtomicU32,
}

/// The shared server; the first caller starts it.
pub(crate) async fn postgres() -> &'static TestServer {
    static SERVER: OnceCell<TestServer> = OnceCell::const_new();
    SERVER.get_or_init(TestServer::start).await
}

/// A place for servers of a test's own (to stop, crash and restart), which their user can enter.
pub(crate) struct Place {
    pub(crate) base: TempDir,
    pub(crate) local: LocalPostgres,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_mode(0o755)
    }

    /// The same on the disk, for a test that wants copies to take their time.
    pub(crate) fn on_disk() -> Self {
        let base = tempfile::Builder::new().prefix("lakeops-it-").tempdir_in("/tmp").unwrap();
        Self::at(base, 0o755)
    }

    pub(crate) fn with_mode(mode: u32) -> Self {
        Self::at(scratch::scratch(), mode)
    }

    fn at(base: TempDir, mode: u32) -> Self {
        fs::set_permissions(base.path(), fs::Permissions::from_mode(mode)).unwrap();
        let shared = base.path().join("shared");
        let local = local_with(|options| {
            options.shared = shared;
            options.bin_dir = Some(programs().to_owned());
        });
        Self { base, local }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.base.path().join("state")
    }

    pub(crate) fn options(&self, name: &str) -> ClusterOptions {
        ClusterOptions::new(name, self.state()).throwaway().with_setting("shared_buffers", "16MB")
    }

    pub(crate) fn record(&self, name: &str) -> ServerRecord {
        let path = self.state().join(format!("postgres/{name}.json"));
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Starts, or adopts, the cluster of this name.
    pub(crate) async fn start(&self, name: &str) -> Result<Cluster, PostgresError> {
        let installation = postgres().await.installation();
        self.local.start(installation, &self.options(name), &Quiet).await
    }
}

/// What gets and starts servers, with the options of the tests.
pub(crate) fn local() -> LocalPostgres {
    local_with(|_| ())
}

/// The same with other options.
pub(crate) fn local_with(change: impl FnOnce(&mut ServerOptions)) -> LocalPostgres {
    let mut options = ServerOptions::from_variables(|name| std::env::var_os(name));
    options.oldest = 17;
    change(&mut options);
    LocalPostgres::new(options, Arc::new(SystemClock), Arc::new(RandomIds))
}

/// The programs of the server that all tests share. Who looks for them below a directory of its own finds
/// none, and would fetch, check and unpack PostgreSQL again.
fn programs() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        // The caller's thread may drive a runtime, and then cannot wait on another.
        let search = std::thread::spawn(|| {
            let found = tokio::runtime::Runtime::new().unwrap().block_on(local().ensure(&Quiet));
            found.unwrap().bin_dir
        });
        search.join().unwrap()
    })
}

/// Where the shared clusters keep their records.
fn state() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lakeops-tests")
}

impl TestServer {
    async fn start() -> Self {
        let local = local();
        // What an earlier process left cannot harm this one.
        drop(local.sweep(&state()).await);
        let installation = local.ensure(&Quiet).await.unwrap();
        let name = format!("test-{}", std::process::id());
        let options = ClusterOptions::new(name, state())
            .throwaway()
            .with_setting("max_connections", "200")
            .with_setting("shared_buffers", "64MB");
        let cluster = local.start_guarded(&installation, &options, &Quiet).await.unwrap();
        Self { cluster, installation, databases: AtomicU32::new(0) }
    }

    /// The superuser in the database `postgres`. Tests that change anything want
    /// [`TestServer::fresh_database`].
    pub(crate) fn endpoint(&self) -> PgEndpoint {
        self.cluster.endpoint()
    }

    /// The server's programs (`psql`, `pgbench`, …).
    pub(crate) fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The server itself.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The superuser in a new, empty database.
    pub(crate) async fn fresh_database(&self, hint: &str) -> PgEndpoint {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("{hint}_{number}");
        let sql = format!("create database {}", Ident::new(&name));
        let mut admin = connect(&self.endpoint()).await;
        sqlx::query(AssertSqlSafe(sql)).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        self.endpoint().with_database(&name)
    }

    /// A new, empty database, as its owner, who is no superuser.
    pub(crate) async fn owned_database(&self, hint: &str) -> PgEndpoint {
        let admin = self.fresh_database(hint).await;
        let owner = format!("owner_of_{}", admin.database());
        let (database, owner_name) = (Ident::new(admin.database()), Ident::new(&owner));
        execute(
            &admin,
            &[
                &format!("create role {owner_name} login"),
                &format!("alter database {database} owner to {owner_name}"),
                &format!("alter schema public owner to {owner_name}"),
            ],
        )
        .await;
        admin.with_user(&owner, None)
    }
}

/// A server of its own, on which nothing is vacuumed unless a test does it.
pub(crate) async fn alone(name: &str) -> (Place, Cluster) {
    let place = Place::new();
    let installation = postgres().await.installation();
    let options = place.options(name).with_setting("autovacuum", "off");
    let server = place.local.start(installation, &options, &Quiet).await.unwrap();
    (place, server)
}

/// The sick database of the demo, made of an empty one, and how an operator reaches it who is no
/// superuser.
pub(crate) async fn patient(database: PgEndpoint) -> (Patient, PgEndpoint) {
    let password = Secret::new("only-sockets-here".to_owned());
    let place = Arc::new(database.clone());
    let patient = Patient::prepare(place, Target::default(), &password).await.unwrap();
    // Roles belong to the whole server: another database may have brought this one.
    let operator = "do $$ begin
        create role shop_operator login;
        grant pg_monitor, pg_signal_backend, pg_read_all_data, pg_maintain to shop_operator;
    exception when duplicate_object or unique_violation then null; end $$";
    execute(&database, &[operator]).await;
    (patient, database.with_user("shop_operator", None))
}

/// Customers pay again. Where they cannot, they never do; how soon they do is up to the machine.
pub(crate) async fn pays(load: &Load) {
    let mut payments = 0;
    for _ in 0..120 {
        payments += load.watch(Duration::from_millis(500)).await.payments;
        if payments > 20 {
            return;
        }
    }
    panic!("{payments} payments in a minute");
}

/// A plain connection, to set up and to look.
pub(crate) async fn connect(endpoint: &PgEndpoint) -> PgConnection {
    PgConnection::connect_with(endpoint.options()).await.unwrap()
}

/// Runs statements, one after the other.
pub(crate) async fn execute(endpoint: &PgEndpoint, statements: &[&str]) {
    let mut connection = connect(endpoint).await;
    for statement in statements {
        let run = sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut connection);
        run.await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    connection.close().await.unwrap();
}

/// Waits until a query says true.
pub(crate) async fn until(endpoint: &PgEndpoint, query: &str, patience: Duration) {
    let deadline = SystemClock.now().plus(patience);
    while !value::<bool>(endpoint, query).await {
        assert!(SystemClock.now() < deadline, "never true: {query}");
        SystemClock.sleep_until(SystemClock.now().plus(Duration::from_millis(20))).await;
    }
}

/// Waits for the next day (UTC) where it is about to begin: for tests that count days, or files of days.
pub(crate) async fn within_a_day() {
    const DAY: i64 = 86_400_000;
    const NEEDED: i64 = 3 * 60_000;
    let now = SystemClock.now();
    let left = DAY - now.as_millis() % DAY;
    if left < NEEDED {
        SystemClock.sleep_until(Timestamp::from_millis(now.as_millis() + left)).await;
    }
}

/// How long this thread has had a processor: a measure of work that a busy machine does not change.
pub(crate) fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Runs an ignored test in a process of its own: one that measures its process.
#[track_caller]
pub(crate) fn by_itself(test: &str) {
    let mut program = Command::new(std::env::current_exe().unwrap());
    let ended = program.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    let also = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}{also}");
    println!("{told}");
}

/// Puts the shipped workflows and SOPs into a folder.
pub(crate) fn ship(to: &Path) {
    for folder in ["workflows", "sops"] {
        let to = to.join(folder);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

/// The one value that a query gives.
pub(crate) async fn value<T>(endpoint: &PgEndpoint, query: &str) -> T
where
    T: Send + Unpin + sqlx::Type<sqlx::Postgres> + for<'r> sqlx::Decode<'r, sqlx::Postgres>,
{
    let mut connection = connect(endpoint).await;
    let query = sqlx::query_scalar(AssertSqlSafe(query.to_owned()));
    let value = query.fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    value
}
