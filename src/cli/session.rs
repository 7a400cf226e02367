//! What verbs work with, opened when it is needed and not before.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use super::args::Global;
use super::error::CliError;
use super::logging::{self, LogFormat};
use super::output::{Format, Output};
use super::places::{Known, lakebase, workspace_of};
use super::progress::Bar;
use super::telemetry::Traces;
use crate::config::{Config, Environment, Flags, Secrets, Settings};
use crate::engine::apply::{Appliers, NotificationApplier, SecretSource};
use crate::engine::kill::ArmedKill;
use crate::engine::parts::{Endpoints, History, Notifier, SettingsSource};
use crate::engine::{Alone, Engine, EngineError, Parts, RunLocks};
use crate::history::{HistoryWriter, Location};
use crate::journal::rehearsal::{EVIDENCE_KINDS, newest};
use crate::journal::retention::seal_of;
use crate::journal::store::{EntryFilter, RunSummary, Stream};
use crate::journal::{Entry, Journal, JournalError, MemoryJournal, Principal, SqliteJournal};
use crate::kernel::kill::Unarmed;
use crate::kernel::{
    Clock, IdSource, KillPoints, RandomIds, Redactor, RunId, Secret, Severity, SqlFile,
    SystemClock, Target,
};
use crate::model::ChatModel;
use crate::plan::Plan;
use crate::postgres::{Cluster, ClusterOptions, LocalPostgres, PgEndpoint, ServerOptions};
use crate::report::RunView;
use crate::report::sealed::SealedView;
use crate::sql_file;
use crate::tools::Catalog;

static OTHER_SESSIONS: SqlFile = sql_file!("doctor/other_sessions");

/// The process as the verbs see it.
pub struct Shell {
    /// What holds for every verb.
    pub global: Global,
    /// The surroundings.
    pub environment: Arc<dyn Environment>,
    /// The streams.
    pub out: Output,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and random draws.
    pub ids: Arc<dyn IdSource>,
    log_format: LogFormat,
    /// What was not sent yet is sent when the process ends.
    _traces: Traces,
}

impl Shell {
    /// Looks at the flags and the environment, and starts logging.
    pub fn new(global: Global, environment: Arc<dyn Environment>) -> Result<Self, CliError> {
        let redactor = Redactor::default();
        let variable = |name: &str| environment.var(name);
        let format = choice(global.output, "LAKEOPS_OUTPUT", variable("LAKEOPS_OUTPUT"))?;
        let log_format =
            choice(global.log_format, "LAKEOPS_LOG_FORMAT", variable("LAKEOPS_LOG_FORMAT"))?;
        let loudness = (global.verbose, global.quiet);
        let traces = logging::start(environment.as_ref(), log_format, loudness, &redactor)?;
        let out = Output::new(environment.as_ref(), format, global.quiet, redactor);
        Ok(Self {
            global,
            environment,
            out,
            clock: Arc::new(SystemClock),
            ids: Arc::new(RandomIds),
            log_format,
            _traces: traces,
        })
    }

    /// Whether messages are written for programs.
    pub fn logs_json(&self) -> bool {
        self.log_format == LogFormat::Json
    }

    /// Whether data is written for programs.
    pub fn prints_json(&self) -> bool {
        self.out.format() == Format::Json
    }

    fn flags(&self) -> Flags {
        Flags {
            config: self.global.config.clone(),
            state: self.global.state.clone(),
            workflows: self.global.workflows.clone(),
            connection: self.global.connection.clone(),
            database_url: self.global.database_url.clone().map(Secret::new),
        }
    }

    /// The configuration.
    pub fn config(&self) -> Result<Config, CliError> {
        Ok(Config::load(Arc::clone(&self.environment), &self.flags())?)
    }

    /// The path as seen from the working directory.
    pub fn path(&self, path: impl Into<PathBuf>) -> PathBuf {
        self.environment.current_dir().join(path.into())
    }
}

fn choice<T: clap::ValueEnum + Default>(
    flag: Option<T>,
    name: &str,
    variable: Option<String>,
) -> Result<T, CliError> {
    match (flag, variable) {
        (Some(flag), _) => Ok(flag),
        (None, Some(text)) => T::from_str(&text, false).map_err(|_| {
            let known: Vec<String> = T::value_variants()
                .iter()
                .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
                .collect();
            let message = format!("`{name}` is `{text}`, and that is no format");
            CliError::usage_with(message, format!("use one of: {}", known.join(", ")))
        }),
        (None, None) => Ok(T::default()),
    }
}

/// What most verbs work with.
pub struct Session<'a> {
    /// The process.
    pub shell: &'a Shell,
    /// The configuration.
    pub config: Config,
    /// The secrets; all of them are masked from here on.
    pub secrets: Secrets,
    journal: OnceLock<Arc<SqliteJournal>>,
    history: OnceLock<Arc<HistoryWriter>>,
    local: Mutex<Option<Cluster>>,
    kill: OnceLock<Arc<dyn KillPoints>>,
}

impl<'a> Session<'a> {
    /// Reads the configuration. Nothing else is opened yet.
    pub fn open(shell: &'a Shell) -> Result<Self, CliError> {
        let config = shell.config()?;
        let secrets = config.secrets(shell.out.redactor().clone());
        Ok(Self {
            shell,
            config,
            secrets,
            journal: OnceLock::new(),
            history: OnceLock::new(),
            local: Mutex::new(None),
            kill: OnceLock::new(),
        })
    }

    /// Who acts.
    pub fn principal(&self) -> Result<Principal, CliError> {
        let actor = self.config.actor()?;
        Ok(Principal { name: actor.name, from: actor.from })
    }

    /// The journal; it is made where there is none.
    pub fn journal(&self) -> Result<Arc<dyn Journal>, CliError> {
        if let Some(journal) = self.journal.get() {
            return Ok(Arc::<SqliteJournal>::clone(journal));
        }
        let directory = self.config.state_dir();
        std::fs::create_dir_all(&directory)
            .map_err(|source| CliError::unwritable(directory.clone(), source))?;
        let redactor = self.shell.out.redactor().clone();
        let journal = SqliteJournal::open(&directory, Arc::clone(&self.shell.clock), redactor)?;
        Ok(Arc::<SqliteJournal>::clone(self.journal.get_or_init(|| journal)))
    }

    /// The journal, when there is one: looking makes none.
    pub fn existing_journal(&self) -> Result<Option<Arc<dyn Journal>>, CliError> {
        if self.config.state_dir().join("journal.db").is_file() {
            self.journal().map(Some)
        } else {
            Ok(None)
        }
    }

    /// The one run whose id begins with `prefix`.
    pub async fn find_run(&self, prefix: &str) -> Result<RunSummary, CliError> {
        match self.existing_journal()? {
            Some(journal) => Ok(journal.find_run(prefix).await?),
            None => Err(JournalError::NoSuchRun { prefix: prefix.to_owned(), found: 0 }.into()),
        }
    }

    /// The plan and the entries of a run.
    pub async fn read_run(&self, run: &RunSummary) -> Result<(Plan, Vec<Entry>), CliError> {
        let journal = self.journal()?;
        if run.sealed.is_some() {
            return Err(EngineError::Sealed { run: run.run_id.clone() }.into());
        }
        let entries = journal.read(&Stream::Run(run.run_id.clone()), 0).await?;
        let plan = journal.plan(&run.plan_id).await?;
        let missing = || JournalError::Corrupt {
            place: format!("plan {}", run.plan_id),
            what: format!("it is missing, and run {} was made from it", run.run_id),
        };
        Ok((plan.ok_or_else(missing)?, entries))
    }

    /// What is left of a run that was sealed.
    pub async fn sealed_view(&self, run: RunSummary) -> Result<SealedView, CliError> {
        let journal = self.journal()?;
        let entries = journal.read(&Stream::Run(run.run_id.clone()), 0).await?;
        let seal = seal_of(journal.as_ref(), &run.run_id).await?;
        Ok(SealedView::new(run, &entries, seal))
    }

    /// A run as it is shown.
    pub async fn view(&self, run: &RunSummary) -> Result<RunView, CliError> {
        let (plan, entries) = self.read_run(run).await?;
        let view = RunView::from_entries(&plan, &entries);
        if view.open_approvals().next().is_none() {
            return Ok(view);
        }
        let filter = EntryFilter {
            kinds: EVIDENCE_KINDS.map(str::to_owned).into(),
            ..EntryFilter::default()
        };
        Ok(view.with_evidence(&newest(self.journal()?.entries(filter).await?)))
    }

    /// A run as it is shown, by its id.
    pub async fn view_of(&self, run: &RunId) -> Result<RunView, CliError> {
        let summary = self.find_run(run.as_str()).await?;
        self.view(&summary).await
    }

    /// Where local servers come from.
    pub fn server_options(&self) -> ServerOptions {
        let variable = |name: &str| self.shell.environment.var(name).map(Into::into);
        let mut options = ServerOptions::from_variables(variable);
        let configured = self.config.local_postgres();
        options.bin_dir = configured.binaries.as_ref().map(|path| self.config.root().join(path));
        options.user.clone_from(&configured.user);
        options
    }

    /// What gets and starts the local PostgreSQL.
    pub fn local_postgres(&self) -> LocalPostgres {
        let options = self.server_options();
        let (clock, ids) = (Arc::clone(&self.shell.clock), Arc::clone(&self.shell.ids));
        LocalPostgres::new(options, clock, ids)
    }

    /// Where the databases of a connection are. The local server is started when it does not run; a
    /// workspace is asked when something asks for a database.
    pub async fn place(&self, name: &str) -> Result<Arc<dyn Endpoints>, CliError> {
        let connection = self.config.connection(name)?;
        if let Some(workspace) = workspace_of(connection)? {
            return Ok(Arc::new(lakebase(self, &workspace)?));
        }
        Ok(Arc::new(self.server(name).await?))
    }

    /// The server of a connection that is no workspace.
    pub async fn server(&self, name: &str) -> Result<PgEndpoint, CliError> {
        match self.config.url(name, self.shell.out.redactor())? {
            Some(url) => Ok(PgEndpoint::from_url(&url)?),
            None => self.start_local().await,
        }
    }

    async fn start_local(&self) -> Result<PgEndpoint, CliError> {
        let mut local = self.local.lock().await;
        if let Some(cluster) = local.as_ref() {
            return Ok(cluster.endpoint());
        }
        let server = self.local_postgres();
        let bar = Bar::new(&self.shell.out);
        let installation = server.ensure(&bar).await?;
        let options = ClusterOptions::new("local", self.config.state_dir());
        let cluster = server.start(&installation, &options, &bar).await?;
        bar.finish();
        let endpoint = cluster.endpoint();
        *local = Some(cluster);
        Ok(endpoint)
    }

    /// Stops the local PostgreSQL when this process started it and nobody else works on it.
    pub async fn close(self) -> Result<(), CliError> {
        let Some(cluster) = self.local.into_inner() else { return Ok(()) };
        if cluster.was_adopted() || others_work(&cluster.endpoint()).await {
            cluster.leave_running();
            return Ok(());
        }
        Ok(cluster.stop().await?)
    }

    /// The engine, for plans of these connections.
    pub async fn engine(&self, connections: &[&str]) -> Result<Engine, CliError> {
        let mut parts = self.parts(connections).await?;
        parts.journal = self.journal()?;
        parts.ownership = Arc::new(RunLocks::new(self.config.state_dir()));
        parts.history = Some(self.history()?);
        Ok(Engine::new(parts).masking(self.shell.out.redactor().clone()))
    }

    /// The engine, for a plan. Its connection is opened now, and fails now, when something in the plan may ask for
    /// it; else it is left alone.
    pub async fn engine_for(&self, plan: &Plan) -> Result<Engine, CliError> {
        self.engine(&connections_of(plan)).await
    }

    /// The history of this journal.
    pub fn history(&self) -> Result<Arc<HistoryWriter>, CliError> {
        if let Some(history) = self.history.get() {
            return Ok(Arc::clone(history));
        }
        let state = self.config.state_dir();
        let location = self.history_location()?;
        let outside = (Arc::clone(&self.shell.clock), self.kill_points()?);
        let history = HistoryWriter::new(location, self.journal()?, &state, outside)
            .keeping(self.config.history().clone());
        Ok(Arc::clone(self.history.get_or_init(|| Arc::new(history))))
    }

    /// The history of this journal, when there is a journal.
    pub fn existing_history(&self) -> Result<Option<Arc<HistoryWriter>>, CliError> {
        match self.existing_journal()? {
            Some(_) => self.history().map(Some),
            None => Ok(None),
        }
    }

    /// The language model, when one is configured.
    pub fn model(&self) -> Result<Option<ChatModel>, CliError> {
        let (config, token) = self.config.model(self.shell.out.redactor());
        Ok(ChatModel::new(config, token)?)
    }

    /// Where the history is.
    pub fn history_location(&self) -> Result<Location, CliError> {
        let configured = self.config.history().location.as_deref();
        Ok(match configured {
            Some(text) => Location::parse(text, self.config.root())?,
            None => Location::folder(&self.config.state_dir().join("history"))?,
        })
    }

    /// Where the history is, with all in it that runs owe it. Who may only read it reads what is there.
    pub async fn whole_history(&self) -> Result<Location, CliError> {
        let appended = match self.existing_history() {
            Ok(Some(history)) => history.append_owed().await.map(drop).map_err(CliError::from),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = appended {
            self.shell.out.note(&format!("rows wait in the journal: {error}"));
        }
        self.history_location()
    }

    /// An engine that only records decisions: it reaches no database.
    pub async fn clerk(&self) -> Result<Engine, CliError> {
        self.engine(&[]).await
    }

    /// An engine whose journal is forgotten: for previews.
    pub async fn rehearsal(&self, connections: &[&str]) -> Result<Engine, CliError> {
        let redactor = self.shell.out.redactor().clone();
        Ok(Engine::new(self.parts(connections).await?).masking(redactor))
    }

    /// The boundaries at which this process kills itself.
    pub fn kill_points(&self) -> Result<Arc<dyn KillPoints>, CliError> {
        if let Some(kill) = self.kill.get() {
            return Ok(Arc::clone(kill));
        }
        let kill = kill_points(self.shell.environment.as_ref())?;
        Ok(Arc::clone(self.kill.get_or_init(|| kill)))
    }

    /// Lets this process kill itself at other boundaries than the environment says. Only what is opened
    /// afterwards knows them.
    pub fn arm(&self, kill: Arc<dyn KillPoints>) {
        // Whoever came first opened parts with what he found.
        drop(self.kill.set(kill));
    }

    async fn parts(&self, connections: &[&str]) -> Result<Parts, CliError> {
        let mut endpoints = BTreeMap::new();
        for name in connections {
            endpoints.insert((*name).to_owned(), self.place(name).await?);
        }
        let redactor = self.shell.out.redactor().clone();
        let clock = Arc::clone(&self.shell.clock);
        let log = self.config.state_dir().join("notifications.log");
        let channels = self.config.channels().keys().cloned().collect();
        Ok(Parts {
            journal: Arc::new(MemoryJournal::new(Arc::clone(&clock), redactor)),
            ownership: Arc::new(Alone),
            catalog: Catalog::builtin(),
            appliers: Arc::new(Appliers::new(
                NotificationApplier::to_file(log).with_channels(channels),
            )),
            endpoints: Arc::new(Known { places: endpoints, model: self.model()? }),
            settings: Arc::new(PerTarget(self.config.clone())),
            secrets: Arc::new(Resolver(self.secrets.clone())),
            clock,
            ids: Arc::clone(&self.shell.ids),
            kill: self.kill_points()?,
            history: self.existing_history()?.map(|history| -> Arc<dyn History> { history }),
            notifier: Arc::new(Messages(self.shell.out.clone())),
            principal: self.principal()?,
            pid: std::process::id(),
        })
    }
}

/// The connections that something in a plan may ask for.
pub fn connections_of(plan: &Plan) -> Vec<&str> {
    plan.body.connects().then_some(plan.body.connection.as_str()).into_iter().collect()
}

#[derive(serde::Deserialize)]
struct OtherSessions {
    others: u64,
}

/// Whether a session of somebody else is on the server.
async fn others_work(endpoint: &PgEndpoint) -> bool {
    let reader = crate::postgres::PgReader::new(
        endpoint.clone(),
        &crate::config::settings::Limits::default(),
        "lakeops:close",
    );
    let row: Result<OtherSessions, _> = reader.row(&OTHER_SESSIONS, &[]).await;
    reader.close().await;
    row.is_ok_and(|row| row.others > 0)
}

/// The boundaries at which this process kills itself: only the demo and tests arm one, in processes
/// that they start for it.
fn kill_points(environment: &dyn Environment) -> Result<Arc<dyn KillPoints>, CliError> {
    let (at, trace) = (environment.var("LAKEOPS_KILL_AT"), environment.var("LAKEOPS_KILL_TRACE"));
    let each = environment.var("LAKEOPS_KILL_EACH").map(PathBuf::from);
    if at.is_none() && trace.is_none() && each.is_none() {
        return Ok(Arc::new(Unarmed));
    }
    let number = at.map(|at| at.parse::<u64>()).transpose();
    let number = number.map_err(|_| CliError::usage("`LAKEOPS_KILL_AT` is no number"))?;
    let trace = trace.map(PathBuf::from);
    let armed = ArmedKill::new(number, trace.as_deref())
        .map_err(|error| CliError::unwritable(trace.unwrap_or_default(), error))?;
    let armed = match each {
        Some(file) => armed.each(&file).map_err(|error| CliError::unwritable(file, error))?,
        None => armed,
    };
    let among = environment.var("LAKEOPS_KILL_AMONG").unwrap_or_default();
    Ok(Arc::new(armed.among(among)))
}

struct PerTarget(Config);

impl SettingsSource for PerTarget {
    fn settings(&self, target: &Target) -> Settings {
        self.0.settings_for(target)
    }
}

struct Resolver(Secrets);

impl SecretSource for Resolver {
    fn secret(&self, name: &str) -> Option<Secret<String>> {
        match self.0.get(name) {
            Ok(secret) => Some(secret),
            Err(error) => {
                tracing::error!(%error, "secret not found");
                None
            }
        }
    }
}

/// Messages of runs go to whoever watches.
struct Messages(Output);

impl Notifier for Messages {
    fn notify(&self, severity: Severity, title: &str, body: &str) {
        tracing::info!(%severity, title, body, "notification");
        if severity > Severity::Info && self.0.is_watched() {
            self.0.note(&format!("{severity}: {title}"));
        }
    }
}
