//! `[local_postgres]`: the PostgreSQL that lakeops starts by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the local PostgreSQL is found and started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LocalPostgres {
    /// The folder that holds `initdb` and `postgres`. Not set: `PATH`, then the usual places, then a
    /// download.
    pub binaries: Option<String>,
    /// The unprivileged user that the server runs as when lakeops runs as root. Not set: `postgres`,
    /// else `nobody`.
    pub user: Option<String>,
}
