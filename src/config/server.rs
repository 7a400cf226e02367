//! `[server]`: what `lakeops serve` listens on, and how much it does at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `lakeops serve` listens on, and how much it does at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where health, metrics and the API are: an address of the loopback interface. Port 0 takes a free
    /// one.
    pub listen: String,
    /// How many runs are worked on at once; further ones wait for their turn.
    pub max_runs: u32,
    /// How many runs may wait for their turn. Beyond that the API answers 429, and slots and events wait in
    /// the journal.
    pub max_queued: u32,
    /// Who may use the API: the name that is recorded, and the secret (of `[secrets]`) that is the token.
    pub tokens: BTreeMap<String, String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8470".to_owned(),
            max_runs: 64,
            max_queued: 2_000,
            tokens: BTreeMap::new(),
        }
    }
}

impl ServerConfig {
    /// The address to listen on. The error says what is wrong: nothing listens beyond the machine.
    pub fn address(&self) -> Result<SocketAddr, String> {
        let address: SocketAddr = self.listen.parse().map_err(|_| {
            format!(
                "`server.listen` is `{}`; write an address such as `127.0.0.1:8470`",
                self.listen
            )
        })?;
        if address.ip().is_loopback() {
            return Ok(address);
        }
        Err(format!(
            "`server.listen` is `{address}`, which others can reach; write `127.0.0.1:{}` and put a \
             proxy with TLS in front of it",
            address.port()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_loopback_interface_is_listened_on() {
        let with = |listen: &str| ServerConfig { listen: listen.to_owned(), ..Default::default() };
        assert!(ServerConfig::default().address().is_ok());
        assert!(with("[::1]:0").address().is_ok());
        for bad in ["0.0.0.0:80", "10.0.0.1:80", "localhost:80", "8470", ""] {
            assert!(with(bad).address().is_err(), "{bad}");
        }
    }
}
