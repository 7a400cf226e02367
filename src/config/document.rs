//! Everything that a configuration can say. The doc comments are what `config show --help` and editors
//! tell; the defaults are the built-in layer.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Settings;
use super::alerts::{AlertsConfig, ChannelEntry};
use super::connection::{ConnectionEntry, ConnectionKind};
use super::history::HistoryConfig;
use super::local_postgres::LocalPostgres;
use super::model::ModelConfig;
use super::secrets::SecretEntry;
use super::server::ServerConfig;

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Document {
    /// Where the journal, plans and the local PostgreSQL are kept.
    pub state: String,
    /// Where workflows are.
    pub workflows: String,
    /// Where SOPs are.
    pub sops: String,
    /// Where named SQL files of your own are.
    pub sql: String,
    /// The connection that is used when nobody names one.
    pub connection: String,
    /// Whether `LAKEOPS_ACTOR` may name who decides; otherwise it is the user of the system.
    pub actor_from_env: bool,
    /// The servers that can be reached.
    pub connections: BTreeMap<String, ConnectionEntry>,
    /// The PostgreSQL that lakeops starts by itself.
    pub local_postgres: LocalPostgres,
    /// Where measurements and findings are kept, and how long.
    pub history: HistoryConfig,
    /// A language model that explains what rules have found.
    pub model: ModelConfig,
    /// Where secrets come from.
    pub secrets: BTreeMap<String, SecretEntry>,
    /// The ways to people.
    pub channels: BTreeMap<String, ChannelEntry>,
    /// Who is told what.
    pub alerts: AlertsConfig,
    /// What `lakeops serve` listens on, and how much it does at once.
    pub server: ServerConfig,
    /// What steps and the engine work with.
    pub settings: Settings,
    /// What differs from `settings` for one target, by `project/branch`.
    #[schemars(with = "BTreeMap<String, Settings>")]
    pub targets: BTreeMap<String, Value>,
}

impl Default for Document {
    fn default() -> Self {
        let local = ConnectionEntry::new(ConnectionKind::Local);
        Self {
            state: "state".to_owned(),
            workflows: "workflows".to_owned(),
            sops: "sops".to_owned(),
            sql: "sql".to_owned(),
            connection: "local".to_owned(),
            actor_from_env: false,
            connections: BTreeMap::from([("local".to_owned(), local)]),
            local_postgres: LocalPostgres::default(),
            history: HistoryConfig::default(),
            model: ModelConfig::default(),
            secrets: BTreeMap::new(),
            channels: BTreeMap::new(),
            alerts: AlertsConfig::default(),
            server: ServerConfig::default(),
            settings: Settings::default(),
            targets: BTreeMap::new(),
        }
    }
}

/// JSON Schema of a configuration, without references. It is made at first use.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = schemars::generate::SchemaSettings::draft2020_12();
        let settings = settings.with(|settings| settings.inline_subschemas = true);
        settings.into_generator().into_root_schema_for::<Document>().to_value()
    });
    &SCHEMA
}
