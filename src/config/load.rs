//! Finds the file, puts the layers on top of one another, and checks the result.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::alerts::{AlertsConfig, ChannelEntry};
use super::check::{self, closest, dotted};
use super::connection::{
    Connection, ConnectionError, DATABASE_URL, EMULATOR, UrlSource, without_password,
};
use super::document::{Document, schema};
use super::layer::{Layer, Origin, merge};
use super::overrides::{self, Flags};
use super::secrets::{SecretSource, Secrets};
use super::server::ServerConfig;
use super::show::{Shown, shown};
use super::{Environment, HistoryConfig, LocalPostgres, ModelConfig, Settings};
use crate::kernel::{Redactor, Secret, Target};

/// Where a configuration is looked for, from the working directory upwards.
pub const FILE: &str = ".config/lakeops.toml";

/// The configuration, all layers put together and checked.
#[derive(Clone)]
pub struct Config {
    environment: Arc<dyn Environment>,
    root: PathBuf,
    file: Option<PathBuf>,
    /// What is written, on top of nothing.
    layers: Layer,
    document: Document,
    per_target: BTreeMap<String, Settings>,
    connections: BTreeMap<String, Connection>,
    secret_sources: BTreeMap<String, SecretSource>,
    selected: String,
}

/// Who acts, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The name.
    pub name: String,
    /// From where.
    pub from: String,
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where it was written.
    pub origin: Origin,
    /// The line of the file, when it is in one.
    pub source_line: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("the configuration file {path} cannot be read")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It says things that make no sense; all of them.
    #[error("{}", list(.0))]
    Invalid(Vec<Problem>),
    /// No connection has this name.
    #[error("no connection is called `{name}`{hint}")]
    NoConnection {
        /// The name.
        name: String,
        /// What there is.
        hint: String,
    },
    /// `LAKEOPS_ACTOR` is set, but may not name who acts.
    #[error(
        "`LAKEOPS_ACTOR` is set, but the configuration does not let it name who acts; write \
         `actor_from_env = true` in {FILE}, or unset it"
    )]
    ActorNotAllowed,
    /// The connection's URL cannot be had.
    #[error("connection `{name}` cannot be used")]
    Connection {
        /// The connection.
        name: String,
        /// Why.
        #[source]
        source: ConnectionError,
    },
}

impl Config {
    /// Loads the configuration.
    pub fn load(environment: Arc<dyn Environment>, flags: &Flags) -> Result<Self, ConfigError> {
        let file = find(environment.as_ref(), flags);
        let text = read(file.as_deref())?;
        let root = file.as_deref().map_or_else(|| environment.current_dir(), root_of);
        let shown_as = file.as_deref().map(|file| relative(environment.as_ref(), file));
        let mut loader = Loader { text: text.as_deref(), problems: Vec::new() };
        let layers = loader.layers(environment.as_ref(), flags, shown_as.as_deref());
        let document = loader.document(&layers);
        let connections = loader.connections(&document, &layers, &root);
        let secret_sources = loader.secrets(&document, &layers, &root);
        let per_target = loader.targets(&document, &layers);
        let mut config = Self {
            environment,
            root,
            file,
            selected: document.connection.clone(),
            layers,
            document,
            per_target,
            connections,
            secret_sources,
        };
        config.add_emulator();
        config.add_database_url(flags, &mut loader);
        loader.check_selected(&config);
        if loader.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid(loader.problems))
        }
    }

    /// The emulator is reached without being configured.
    fn add_emulator(&mut self) {
        let file = self.state_dir().join("emulator/connection.json");
        let built_in = || Connection::Emulator { file };
        self.connections.entry(EMULATOR.to_owned()).or_insert_with(built_in);
    }

    /// `--database-url` and `LAKEOPS_DATABASE_URL` make a connection of their own and select it, unless
    /// a stronger layer named another one.
    fn add_database_url(&mut self, flags: &Flags, loader: &mut Loader<'_>) {
        let variable = "LAKEOPS_DATABASE_URL";
        let connection_from = self.layers.origin(&["connection".to_owned()]);
        let (url, origin) = match (&flags.database_url, self.environment.var(variable)) {
            (Some(url), _) => (url.clone(), Origin::Flag { flag: "--database-url".to_owned() }),
            (None, Some(_)) if matches!(connection_from, Origin::Flag { .. }) => return,
            (None, Some(url)) => {
                (Secret::new(url), Origin::Environment { variable: variable.to_owned() })
            }
            (None, None) => return,
        };
        let is_rival = matches!(
            (&origin, &connection_from),
            (Origin::Flag { .. }, Origin::Flag { .. })
                | (Origin::Environment { .. }, Origin::Environment { .. })
        );
        if is_rival {
            loader.problems.push(Problem {
                message: format!("{connection_from} names a connection, and {origin} another one"),
                origin: origin.clone(),
                source_line: None,
                hint: Some("give one of the two".to_owned()),
            });
        }
        let shown = Value::String(without_password(url.expose()));
        let place = super::layer::Place::both(origin.clone());
        self.layers.set(&["connections", DATABASE_URL, "url"], shown, place.clone());
        let kind = Value::String("postgres".to_owned());
        self.layers.set(&["connections", DATABASE_URL, "kind"], kind, place.clone());
        self.layers.set(&["connection"], Value::String(DATABASE_URL.to_owned()), place);
        let url = UrlSource::Given(url);
        self.connections.insert(DATABASE_URL.to_owned(), Connection::Postgres { url });
        DATABASE_URL.clone_into(&mut self.selected);
    }

    /// The folder that relative paths start from: the one that holds `.config`, else the working
    /// directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where the journal, plans and the local PostgreSQL are kept.
    pub fn state_dir(&self) -> PathBuf {
        self.root.join(&self.document.state)
    }

    /// Where workflows are.
    pub fn workflows_dir(&self) -> PathBuf {
        self.root.join(&self.document.workflows)
    }

    /// Where SOPs are.
    pub fn sops_dir(&self) -> PathBuf {
        self.root.join(&self.document.sops)
    }

    /// Where named SQL files of the user's own are.
    pub fn sql_dir(&self) -> PathBuf {
        self.root.join(&self.document.sql)
    }

    /// The local PostgreSQL.
    pub fn local_postgres(&self) -> &LocalPostgres {
        &self.document.local_postgres
    }

    /// The language model, and its token where the environment holds one; masked from now on.
    pub fn model(&self, redactor: &Redactor) -> (&ModelConfig, Option<Secret<String>>) {
        let model = &self.document.model;
        let token = self.environment.var(&model.token_from);
        let token = token.filter(|token| redactor.register(&model.token_from, token).is_ok());
        (model, token.map(Secret::new))
    }

    /// Where measurements and findings are kept.
    pub fn history(&self) -> &HistoryConfig {
        &self.document.history
    }

    /// The ways to people, by name.
    pub fn channels(&self) -> &BTreeMap<String, ChannelEntry> {
        &self.document.channels
    }

    /// Who is told what.
    pub fn alerts(&self) -> &AlertsConfig {
        &self.document.alerts
    }

    /// What the server listens on, and how much it does at once.
    pub fn server(&self) -> &ServerConfig {
        &self.document.server
    }

    /// The settings that hold where no target says otherwise.
    pub fn settings(&self) -> &Settings {
        &self.document.settings
    }

    /// The settings for a target.
    pub fn settings_for(&self, target: &Target) -> Settings {
        let key = match (&target.project, &target.branch) {
            (Some(project), Some(branch)) => format!("{project}/{branch}"),
            (Some(project), None) => project.clone(),
            (None, _) => return self.document.settings.clone(),
        };
        self.per_target.get(&key).unwrap_or(&self.document.settings).clone()
    }

    /// The name of the connection that is used when nobody names one.
    pub fn selected_connection(&self) -> &str {
        &self.selected
    }

    /// All connections by name.
    pub fn connections(&self) -> &BTreeMap<String, Connection> {
        &self.connections
    }

    /// A connection by name.
    pub fn connection(&self, name: &str) -> Result<&Connection, ConfigError> {
        self.connections.get(name).ok_or_else(|| ConfigError::NoConnection {
            name: name.to_owned(),
            hint: connection_hint(name, &self.connections),
        })
    }

    /// The URL of a connection of the kind `postgres`; `None` for the other kinds. Its password becomes
    /// known to the redactor.
    pub fn url(
        &self,
        name: &str,
        redactor: &Redactor,
    ) -> Result<Option<Secret<String>>, ConfigError> {
        match self.connection(name)? {
            Connection::Postgres { url } => {
                let read = url.read(self.environment.as_ref(), redactor);
                let failed = |source| ConfigError::Connection { name: name.to_owned(), source };
                read.map(Some).map_err(failed)
            }
            Connection::Local | Connection::Lakebase(_) | Connection::Emulator { .. } => Ok(None),
        }
    }

    /// The secrets, all of which are masked from now on.
    pub fn secrets(&self, redactor: Redactor) -> Secrets {
        Secrets::new(self.secret_sources.clone(), Arc::clone(&self.environment), redactor)
    }

    /// Who acts: the user of the system, or `LAKEOPS_ACTOR` where the file allows it.
    pub fn actor(&self) -> Result<Actor, ConfigError> {
        let from = self.environment.place();
        match self.environment.var("LAKEOPS_ACTOR") {
            Some(_) if !self.document.actor_from_env => Err(ConfigError::ActorNotAllowed),
            Some(name) => {
                let from = format!("{} at {from}", self.environment.user());
                Ok(Actor { name, from })
            }
            None => Ok(Actor { name: self.environment.user(), from }),
        }
    }

    /// Every value with its origin, by key.
    pub fn show(&self) -> Vec<Shown> {
        shown(&on_defaults(&self.layers))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("root", &self.root).finish_non_exhaustive()
    }
}

fn find(environment: &dyn Environment, flags: &Flags) -> Option<PathBuf> {
    let current = environment.current_dir();
    let named = flags.config.clone();
    let named = named.or_else(|| environment.var("LAKEOPS_CONFIG").map(PathBuf::from));
    if let Some(named) = named {
        return Some(current.join(named));
    }
    current.ancestors().map(|folder| folder.join(FILE)).find(|file| file.is_file())
}

fn read(file: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let Some(path) = file else { return Ok(None) };
    let text = std::fs::read_to_string(path);
    text.map(Some).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn root_of(file: &Path) -> PathBuf {
    let folder = file.parent().unwrap_or(Path::new("."));
    let is_config = folder.file_name().is_some_and(|name| name == ".config");
    let root = if is_config { folder.parent() } else { Some(folder) };
    root.unwrap_or(Path::new(".")).to_owned()
}

/// The path as a person in the working directory would write it.
fn relative(environment: &dyn Environment, file: &Path) -> PathBuf {
    file.strip_prefix(environment.current_dir()).unwrap_or(file).to_owned()
}

fn connection_hint(name: &str, known: &BTreeMap<String, Connection>) -> String {
    if let Some(near) = closest(name, known.keys().map(String::as_str)) {
        return format!("; did you mean `{near}`?");
    }
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    format!("; there are: {}", names.join(", "))
}

/// What is written, on top of what is built in.
fn on_defaults(written: &Layer) -> Layer {
    let mut layers = Layer::default();
    if let Ok(Value::Object(defaults)) = serde_json::to_value(Document::default()) {
        layers.value = defaults;
    }
    layers.put(written.clone());
    layers
}

/// The configuration, when nothing is written but folders and the connection, as flags do: there is nothing to check
/// in them. `None`: there is more.
fn of_texts(written: &Layer) -> Option<Document> {
    let mut document = Document::default();
    for (key, value) in &written.value {
        let place = match key.as_str() {
            "state" => &mut document.state,
            "workflows" => &mut document.workflows,
            "sops" => &mut document.sops,
            "sql" => &mut document.sql,
            "connection" => &mut document.connection,
            _ => return None,
        };
        value.as_str()?.clone_into(place);
    }
    Some(document)
}

/// Collects everything that is wrong while the layers are put together.
struct Loader<'a> {
    text: Option<&'a str>,
    problems: Vec<Problem>,
}

impl Loader<'_> {
    fn layers(
        &mut self,
        environment: &dyn Environment,
        flags: &Flags,
        file: Option<&Path>,
    ) -> Layer {
        let mut layers = Layer::default();
        if let (Some(file), Some(text)) = (file, self.text) {
            let (layer, mistakes) = super::file::parse(file, text);
            for mistake in mistakes {
                self.push(mistake.message, mistake.origin, None);
            }
            layers = layer;
        }
        layers.put(overrides::environment(environment, &layers, &mut self.problems));
        layers.put(overrides::flags(environment, flags));
        layers
    }

    /// What is written, checked and read.
    fn document(&mut self, layers: &Layer) -> Document {
        if let Some(document) = of_texts(layers) {
            return if self.problems.is_empty() { document } else { Document::default() };
        }
        let whole = Value::Object(on_defaults(layers).value);
        for finding in check::check(schema(), &whole) {
            let place = layers.place(&finding.path);
            let origin = if finding.at_key { place.key } else { place.value };
            self.push(finding.message, origin, finding.hint);
        }
        if !self.problems.is_empty() {
            return Document::default();
        }
        match serde_json::from_value(whole) {
            Ok(document) => document,
            Err(error) => {
                self.push(error.to_string(), Origin::Default, None);
                Document::default()
            }
        }
    }

    fn connections(
        &mut self,
        document: &Document,
        layers: &Layer,
        root: &Path,
    ) -> BTreeMap<String, Connection> {
        let mut connections = BTreeMap::new();
        for (name, entry) in &document.connections {
            match entry.resolve(root) {
                Ok(connection) => {
                    connections.insert(name.clone(), connection);
                }
                Err((key, message)) => {
                    let mut path = vec!["connections".to_owned(), name.clone()];
                    path.extend(key.map(str::to_owned));
                    let origin = layers.place(&path).key;
                    self.push(format!("`{}`: {message}", dotted(&path)), origin, None);
                }
            }
        }
        connections
    }

    fn secrets(
        &mut self,
        document: &Document,
        layers: &Layer,
        root: &Path,
    ) -> BTreeMap<String, SecretSource> {
        let mut sources = BTreeMap::new();
        for (name, entry) in &document.secrets {
            match entry.resolve(root) {
                Ok(source) => {
                    sources.insert(name.clone(), source);
                }
                Err(message) => {
                    let path = ["secrets".to_owned(), name.clone()];
                    let origin = layers.place(&path).key;
                    self.push(format!("`{}`: {message}", dotted(&path)), origin, None);
                }
            }
        }
        sources
    }

    fn targets(&mut self, document: &Document, layers: &Layer) -> BTreeMap<String, Settings> {
        let mut targets = BTreeMap::new();
        if document.targets.is_empty() {
            return targets;
        }
        let base = match serde_json::to_value(&document.settings) {
            Ok(Value::Object(base)) => base,
            Ok(_) | Err(_) => Map::new(),
        };
        let settings_schema = check::schema_at(schema(), &["settings".to_owned()]);
        for (name, over) in &document.targets {
            let mut merged = base.clone();
            if let Value::Object(over) = over {
                merge(&mut merged, over.clone());
            }
            let merged = Value::Object(merged);
            let path = ["targets".to_owned(), name.clone()];
            if let Some(settings_schema) = settings_schema {
                for finding in check::check(settings_schema, &merged) {
                    let path = [&path[..], &finding.path[..]].concat();
                    let origin = layers.place(&path).key;
                    self.push(format!("`{}`: {}", dotted(&path), finding.message), origin, None);
                }
            }
            match serde_json::from_value(merged) {
                Ok(settings) => {
                    targets.insert(name.clone(), settings);
                }
                Err(_) if !self.problems.is_empty() => {}
                Err(error) => {
                    let origin = layers.place(&path).key;
                    self.push(format!("`{}`: {error}", dotted(&path)), origin, None);
                }
            }
        }
        targets
    }

    fn check_selected(&mut self, config: &Config) {
        if self.problems.is_empty() && !config.connections.contains_key(&config.selected) {
            let message = format!("no connection is called `{}`", config.selected);
            let hint = connection_hint(&config.selected, &config.connections);
            let origin = config.layers.place(&["connection".to_owned()]).value;
            self.push(message, origin, Some(hint.trim_start_matches("; ").to_owned()));
        }
    }

    fn push(&mut self, message: String, origin: Origin, hint: Option<String>) {
        let source_line = match &origin {
            Origin::File { line, .. } => {
                let text = self.text.unwrap_or_default();
                text.lines().nth(line.saturating_sub(1)).map(str::to_owned)
            }
            Origin::Default | Origin::Environment { .. } | Origin::Flag { .. } => None,
        };
        self.problems.push(Problem { message, origin, source_line, hint });
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Origin::File { file, line, column } = &self.origin {
            write!(f, "\n  --> {}:{line}:{column}", file.display())?;
            if let Some(source) = &self.source_line {
                let gutter = " ".repeat(line.to_string().len());
                let caret = " ".repeat(column.saturating_sub(1));
                write!(f, "\n{gutter} |\n{line} | {source}\n{gutter} | {caret}^")?;
            }
        } else {
            write!(f, "\n  --> {}", self.origin)?;
        }
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  = {hint}"))
    }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
