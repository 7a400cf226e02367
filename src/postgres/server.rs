//! Gets a PostgreSQL and runs clusters with it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{Cluster, Halt, LOCK_LIMIT};
use super::deadline::{FileLock, TICK, lock, tick};
use super::directory::{ClusterPaths, FileError};
use super::fetch;
use super::find::{self, Rejected, Search};
use super::installation::{Installation, Source};
use super::options::{ClusterOptions, ServerOptions};
use super::place::ClusterPlace;
use super::postmaster::{self, Postmaster, Standing};
use super::progress::{Progress, Stage};
use super::record::{FORMAT, ServerRecord};
use super::server_error::PostgresError;
use super::spawn::{self, ServerProcess, Start};
use super::user::ServerUser;
use crate::kernel::{Clock, IdSource, Secret};

/// How often a start is tried again because its port was taken in between.
const PORT_ATTEMPTS: u32 = 5;

/// Gets a PostgreSQL and runs clusters with it.
#[derive(Clone)]
pub struct LocalPostgres {
    options: ServerOptions,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl LocalPostgres {
    /// Does nothing yet.
    pub fn new(options: ServerOptions, clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Self { options, clock, ids }
    }

    /// Looks for an installation, also for one that was fetched earlier, and changes nothing.
    pub async fn search(&self) -> Result<Search, PostgresError> {
        let user = self.user()?;
        let mut search = find::find(&self.options, &user, &*self.clock).await;
        let fetched = fetch::fetched(&self.options, &user).ok().filter(|dir| dir.is_dir());
        if let (None, None, Some(dir)) = (&search.found, &self.options.bin_dir, fetched) {
            search.found = Some(self.inspect_fetched(&dir, &user).await?);
        }
        Ok(search)
    }

    /// Finds an installation, or fetches one.
    pub async fn ensure(&self, progress: &dyn Progress) -> Result<Installation, PostgresError> {
        let search = self.search().await?;
        if let Some(found) = search.found {
            return Ok(found);
        }
        let mut rejected = search.rejected;
        if self.options.bin_dir.is_some() {
            return Err(rejected
                .pop()
                .map_or_else(|| self.not_found(Vec::new(), None), PostgresError::Configured));
        }
        if !self.options.fetch {
            return Err(self.not_found(rejected, None));
        }
        let user = self.user()?;
        match fetch::fetch(&self.options, &user, &*self.clock, progress).await {
            Ok(dir) => self.inspect_fetched(&dir, &user).await,
            Err(e) => Err(self.not_found(rejected, Some(e))),
        }
    }

    /// Starts a cluster, or adopts its server when that is still running. It outlives this process
    /// only after [`Cluster::leave_running`], or when this process dies.
    pub async fn start(
        &self,
        installation: &Installation,
        options: &ClusterOptions,
        progress: &dyn Progress,
    ) -> Result<Cluster, PostgresError> {
        self.launch(installation, options, false, progress).await
    }

    /// Starts a cluster whose server stops when this process ends, however it ends: a small shell
    /// process in front of the server waits for the end of a pipe that only this process holds.
    pub async fn start_guarded(
        &self,
        installation: &Installation,
        options: &ClusterOptions,
        progress: &dyn Progress,
    ) -> Result<Cluster, PostgresError> {
        self.launch(installation, options, true, progress).await
    }

    /// Stops the cluster's server and removes all of the cluster.
    pub async fn discard(&self, state: &Path, name: &str) -> Result<(), PostgresError> {
        let in_use = || PostgresError::InUse { name: name.to_owned() };
        check_name(name)?;
        let paths = ClusterPaths::new(state, name, &self.options.shared, &self.user()?)?;
        let _held = lock(&paths.lock, LOCK_LIMIT, &*self.clock).await?.ok_or_else(in_use)?;
        let _owner = lock(&paths.owner, Duration::ZERO, &*self.clock).await?.ok_or_else(in_use)?;
        let record = ServerRecord::read(&paths.record);
        self.vacate(&paths, record.as_ref(), Duration::from_secs(10)).await?;
        for directory in [&paths.root, &paths.socket] {
            remove(directory, fs::remove_dir_all(directory))?;
        }
        for file in [&paths.record, &paths.owner, &paths.lock] {
            remove(file, fs::remove_file(file))?;
        }
        Ok(())
    }

    /// Discards the guarded clusters whose processes have ended.
    pub async fn sweep(&self, state: &Path) -> Result<(), PostgresError> {
        let Ok(entries) = fs::read_dir(state.join("postgres")) else { return Ok(()) };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            let guarded = ServerRecord::read(&path).is_some_and(|record| record.guarded);
            if !guarded || path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match self.discard(state, name).await {
                Ok(()) | Err(PostgresError::InUse { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Where the cluster `name` of a state directory lives. Creates nothing of it yet.
    pub(crate) fn place(&self, state: &Path, name: &str) -> Result<ClusterPlace, PostgresError> {
        check_name(name)?;
        let user = self.user()?;
        let paths = ClusterPaths::new(state, name, &self.options.shared, &user)?;
        Ok(ClusterPlace::new(paths, user))
    }

    /// Makes a data directory and starts no server on it.
    pub(crate) async fn initialise(
        &self,
        installation: &Installation,
        place: &ClusterPlace,
        more: &[&str],
    ) -> Result<(), PostgresError> {
        place.create()?;
        let password = Secret::new(self.random());
        spawn::initialise(installation, place.paths(), &password, more, &*self.clock).await
    }

    /// Gives a cluster, whose data directory was copied, a password of its own.
    pub(crate) fn draw_password(&self, place: &ClusterPlace) -> Result<(), PostgresError> {
        Ok(spawn::write_password(place.paths(), &Secret::new(self.random()))?)
    }

    fn user(&self) -> Result<ServerUser, PostgresError> {
        Ok(ServerUser::choose(self.options.user.as_deref())?)
    }

    fn not_found(
        &self,
        rejected: Vec<Rejected>,
        fetch: Option<fetch::FetchError>,
    ) -> PostgresError {
        PostgresError::NotFound { oldest: self.options.oldest, rejected, fetch }
    }

    async fn inspect_fetched(
        &self,
        dir: &Path,
        user: &ServerUser,
    ) -> Result<Installation, PostgresError> {
        Installation::inspect(dir, Source::Fetched, user, &*self.clock)
            .await
            .map_err(|reason| PostgresError::Fetched(Rejected { bin_dir: dir.to_owned(), reason }))
    }

    async fn launch(
        &self,
        installation: &Installation,
        options: &ClusterOptions,
        guarded: bool,
        progress: &dyn Progress,
    ) -> Result<Cluster, PostgresError> {
        let in_use = || PostgresError::InUse { name: options.name.clone() };
        check_name(&options.name)?;
        let paths = ClusterPaths::new(
            &options.state,
            &options.name,
            &self.options.shared,
            &installation.user,
        )?;
        progress.report(Stage::Waiting, None);
        let _held = lock(&paths.lock, LOCK_LIMIT, &*self.clock).await?.ok_or_else(in_use)?;
        let owner = lock(&paths.owner, Duration::ZERO, &*self.clock).await?.ok_or_else(in_use)?;
        paths.create(&installation.user)?;
        let record = ServerRecord::read(&paths.record);
        let launch = Launch { local: self, installation, options, paths: &paths, guarded };
        if let Some(record) = record.as_ref().filter(|record| !guarded && !record.guarded)
            && let Some(server) = self.running(&paths, record, options.start_limit).await?
        {
            let record = ServerRecord { pid: Some(server.pid()), ..record.clone() };
            return launch.cluster(record, None, 0, None);
        }
        self.vacate(&paths, record.as_ref(), options.stop_limit).await?;
        launch.prepare(progress).await?;
        progress.report(Stage::Starting, None);
        launch.run(record.map(|record| record.port), guarded.then_some(owner)).await
    }

    /// The server of the record, once it takes connections; `None` when it does not run (any more).
    async fn running(
        &self,
        paths: &ClusterPaths,
        record: &ServerRecord,
        limit: Duration,
    ) -> Result<Option<Postmaster>, PostgresError> {
        let until = self.clock.now().plus(limit);
        while self.clock.now() < until {
            match postmaster::examine(&paths.data, Some(&record.token))? {
                Standing::Ours(server) if server.ready => return Ok(Some(server)),
                Standing::Ours(_) => tick(&*self.clock, TICK).await, // starting or stopping
                _ => return Ok(None),
            }
        }
        let log = spawn::log_tail(&paths.log, 0);
        Err(PostgresError::Slow { what: "the start of the server by another process", limit, log })
    }

    /// Makes sure that nobody runs on the data directory.
    async fn vacate(
        &self,
        paths: &ClusterPaths,
        record: Option<&ServerRecord>,
        limit: Duration,
    ) -> Result<(), PostgresError> {
        let token = record.map(|record| record.token.as_str());
        if let (Some(token), Standing::Ours(_)) = (token, postmaster::examine(&paths.data, token)?)
        {
            Halt { paths, token, limit, clock: &*self.clock }.run().await?;
        }
        match postmaster::examine(&paths.data, token)? {
            Standing::Nobody | Standing::Dead { reused: false } => Ok(()),
            // PostgreSQL would take the process that now has this number for its own server.
            Standing::Dead { reused: true } => {
                let left_over = paths.data.join("postmaster.pid");
                Ok(remove(&left_over, fs::remove_file(&left_over))?)
            }
            Standing::Ours(server) => {
                Err(PostgresError::Foreign { pid: server.pid(), data: paths.data.clone() })
            }
            Standing::Foreign { pid } => {
                Err(PostgresError::Foreign { pid, data: paths.data.clone() })
            }
        }
    }

    /// A random text that nobody can guess: 32 hexadecimal digits.
    fn random(&self) -> String {
        format!("{}{}", self.ids.run_id(), self.ids.run_id())
    }
}

/// One start of one cluster, with the cluster's lock held.
struct Launch<'a> {
    local: &'a LocalPostgres,
    installation: &'a Installation,
    options: &'a ClusterOptions,
    paths: &'a ClusterPaths,
    guarded: bool,
}

impl Launch<'_> {
    /// Makes the data directory, or checks that we can use it.
    async fn prepare(&self, progress: &dyn Progress) -> Result<(), PostgresError> {
        let data = &self.paths.data;
        if !data.exists() {
            progress.report(Stage::Initialising, None);
            let password = Secret::new(self.local.random());
            let clock = &*self.local.clock;
            return spawn::initialise(self.installation, self.paths, &password, &[], clock).await;
        }
        let path = data.join("PG_VERSION");
        let found = fs::read_to_string(&path).map_err(|e| FileError::new("read", &path, e))?;
        let ours = self.installation.version.major;
        if found.trim() == ours.to_string() {
            return Ok(());
        }
        Err(PostgresError::OtherVersion {
            data: data.clone(),
            found: found.trim().to_owned(),
            ours,
        })
    }

    /// Starts the server; again when its port is taken, or while the memory of a server that
    /// crashed is still in use by what is left of it.
    async fn run(
        &self,
        last_port: Option<u16>,
        owner: Option<FileLock>,
    ) -> Result<Cluster, PostgresError> {
        let clock = &*self.local.clock;
        let until = clock.now().plus(self.options.start_limit);
        let mut port = spawn::free_port(last_port)?;
        let mut attempts = 0;
        loop {
            let log_from = spawn::log_end(&self.paths.log);
            let record = self.record(port);
            // Written before the server starts: should we die now, the next start knows its token.
            record.write(&self.paths.record)?;
            match self.attempt(record, log_from).await {
                Ok((record, process)) => {
                    return self.cluster(record, Some(process), log_from, owner);
                }
                Err(PostgresError::Exited { log, .. })
                    if log.contains("could not create any TCP/IP sockets")
                        && attempts < PORT_ATTEMPTS =>
                {
                    attempts += 1;
                    port = spawn::free_port(None)?;
                }
                Err(PostgresError::Exited { log, .. })
                    if log.contains("pre-existing shared memory block") && clock.now() < until =>
                {
                    tick(clock, Duration::from_millis(50)).await;
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn attempt(
        &self,
        mut record: ServerRecord,
        log_from: u64,
    ) -> Result<(ServerRecord, ServerProcess), PostgresError> {
        let clock = &*self.local.clock;
        let start = Start { token: record.token.clone(), port: record.port, guarded: self.guarded };
        let mut process =
            ServerProcess::start(self.installation, self.paths, self.options, &start)?;
        let until = clock.now().plus(self.options.start_limit);
        let log = || spawn::log_tail(&self.paths.log, log_from);
        while clock.now() < until {
            if let Some(status) = process.exited() {
                return Err(PostgresError::exited(Some(status), log()));
            }
            if let Standing::Ours(server) =
                postmaster::examine(&self.paths.data, Some(&record.token))?
                && server.ready
            {
                record.pid = Some(server.pid());
                record.write(&self.paths.record)?;
                return Ok((record, process));
            }
            tick(clock, TICK).await;
        }
        let (log, limit) = (log(), self.options.start_limit);
        let (paths, token) = (self.paths, record.token.as_str());
        Halt { paths, token, limit: self.options.stop_limit, clock }.run().await?;
        process.give_up();
        Err(PostgresError::Slow { what: "starting the server", limit, log })
    }

    fn record(&self, port: u16) -> ServerRecord {
        ServerRecord {
            format: FORMAT,
            version: self.installation.version.to_string(),
            bin_dir: self.installation.bin_dir.clone(),
            data: self.paths.data.clone(),
            socket: self.paths.socket.clone(),
            port,
            user: self.installation.user.name().to_owned(),
            token: self.local.random(),
            guarded: self.guarded,
            pid: None,
            started: self.local.clock.now(),
        }
    }

    fn cluster(
        &self,
        record: ServerRecord,
        process: Option<ServerProcess>,
        log_from: u64,
        owner: Option<FileLock>,
    ) -> Result<Cluster, PostgresError> {
        Ok(Cluster {
            password: spawn::read_password(self.paths)?,
            paths: self.paths.clone(),
            record,
            process,
            owner,
            clock: Arc::clone(&self.local.clock),
            stop_limit: self.options.stop_limit,
            log_from,
            stop_on_drop: true,
        })
    }
}

fn check_name(name: &str) -> Result<(), PostgresError> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if (1..=32).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(PostgresError::Name { name: name.to_owned() })
}

/// What is not there need not be removed.
fn remove(path: &Path, result: std::io::Result<()>) -> Result<(), FileError> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("remove", path, e))
        }
        _ => Ok(()),
    }
}
