//! Settings: built-in defaults, `.config/lakeops.toml`, `LAKEOPS_*`, flags; the later wins.
//!
//! Nothing but this module reads the environment, and nothing here talks to a server. Start with
//! [`Config`]; [`Settings`] is what steps and the engine are given, resolved for one target.

pub mod alerts;
mod check;
pub mod connection;
pub mod document;
pub mod environment;
mod file;
pub mod history;
pub mod lakebase;
mod layer;
mod load;
pub mod local_postgres;
pub mod model;
mod overrides;
pub mod policies;
pub mod secrets;
pub mod server;
pub mod settings;
mod show;
pub mod window;

pub use alerts::{AlertsConfig, ChannelEntry};
pub use connection::{Connection, ConnectionError};
pub use environment::{Environment, FixedEnvironment, ProcessEnvironment};
pub use history::HistoryConfig;
pub use lakebase::{LakebaseConnection, TokenPlace};
pub use layer::Origin;
pub use load::{Actor, Config, ConfigError, FILE, Problem};
pub use local_postgres::LocalPostgres;
pub use model::ModelConfig;
pub use overrides::Flags;
pub use secrets::{SecretError, Secrets};
pub use server::ServerConfig;
pub use settings::Settings;
pub use show::Shown;
