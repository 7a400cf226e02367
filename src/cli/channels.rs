//! The configured channels, opened: what carries alerts to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::error::CliError;
use super::session::Session;
use crate::alert::channel::Channel;
use crate::alert::channel::email::Email;
use crate::alert::channel::pagerduty::Pagerduty;
use crate::alert::channel::slack::Slack;
use crate::alert::channel::webhook::Webhook;
use crate::alert::courier::{Courier, Means};
use crate::alert::route::Routes;
use crate::config::alerts::{ChannelEntry, ChannelKind};
use crate::journal::ServerLock;
use crate::kernel::Secret;

/// The courier for the configured channels; `None`: there are none.
pub fn courier(session: &Session<'_>) -> Result<Option<Courier>, CliError> {
    let config = &session.config;
    if config.channels().is_empty() {
        return Ok(None);
    }
    let mut channels: BTreeMap<String, Box<dyn Channel>> = BTreeMap::new();
    let client = client(session)?;
    for (name, entry) in config.channels() {
        channels.insert(name.clone(), open(session, (name, entry), &client)?);
    }
    let routes = Routes::new(config.alerts(), config.channels());
    let means = Means {
        journal: session.journal()?,
        clock: Arc::clone(&session.shell.clock),
        redactor: session.shell.out.redactor().clone(),
        kill: session.kill_points()?,
        channels: Arc::new(channels),
    };
    Ok(Some(Courier::new(means, routes, config.alerts().clone())))
}

/// Tries once to deliver what waits, unless a server does. What is not taken stays in the journal, and
/// keeps no command from ending.
pub async fn deliver(session: &Session<'_>) {
    let state = session.config.state_dir();
    let is_served = || ServerLock::holder(&state).ok().flatten().is_some();
    if session.config.channels().is_empty() || is_served() {
        return;
    }
    let turn = match courier(session) {
        Ok(Some(mut courier)) => courier.turn().await.map_err(CliError::from),
        Ok(None) => return,
        Err(error) => Err(error),
    };
    match turn {
        Ok(turn) if turn.waiting == 0 => {}
        Ok(turn) => {
            let waiting = crate::report::style::count(turn.waiting, "alert");
            session
                .shell
                .out
                .note(&format!("{waiting} not sent yet; a server or the next run does"));
        }
        Err(error) => session.shell.out.note(&format!("alerts were not sent: {error}")),
    }
}

fn client(session: &Session<'_>) -> Result<reqwest::Client, CliError> {
    // Another part of the program may have chosen the same already.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .timeout(session.config.alerts().timeout.0)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| CliError::usage(format!("no connection can be made: {error}")))
}

fn open(
    session: &Session<'_>,
    (name, entry): (&str, &ChannelEntry),
    client: &reqwest::Client,
) -> Result<Box<dyn Channel>, CliError> {
    let refused =
        |why: String| CliError::usage(format!("the channel `{name}` cannot be used: {why}"));
    if let Some(mistake) = entry.mistake() {
        return Err(refused(mistake.to_owned()));
    }
    let secret = match &entry.secret {
        Some(secret) => {
            let value = session.secrets.get(secret);
            Some(value.map_err(|error| refused(error.to_string()))?)
        }
        None => None,
    };
    let needed = || secret.clone().unwrap_or_else(|| Secret::new(String::new()));
    Ok(match entry.kind {
        ChannelKind::Slack => Box::new(Slack::new(client.clone(), needed())),
        ChannelKind::Pagerduty => {
            Box::new(Pagerduty::new(client.clone(), entry.url.as_deref(), needed()))
        }
        ChannelKind::Webhook => {
            let url = entry.url.as_deref().unwrap_or_default();
            let clock = Arc::clone(&session.shell.clock);
            Box::new(Webhook::new(client.clone(), clock, url, needed()))
        }
        ChannelKind::Email => {
            let ca = entry.ca_file.as_ref().map(|file| {
                let path = session.config.root().join(file);
                std::fs::read(&path).map_err(|source| CliError::unreadable(path, source))
            });
            let ca = ca.transpose()?;
            Box::new(Email::new(entry, secret, ca.as_deref()).map_err(refused)?)
        }
    })
}
