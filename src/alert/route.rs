//! Which channels a message takes. PURE.

use std::collections::BTreeMap;

use crate::config::alerts::{AlertsConfig, ChannelEntry, ChannelKind, Route};
use crate::kernel::Severity;

/// The routes as they hold.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Vec<Route>,
    channels: Vec<String>,
}

impl Routes {
    /// The configured routes, or the defaults for these channels.
    pub fn new(config: &AlertsConfig, channels: &BTreeMap<String, ChannelEntry>) -> Self {
        let routes =
            if config.routes.is_empty() { defaults(channels) } else { config.routes.clone() };
        Self { routes, channels: channels.keys().cloned().collect() }
    }

    /// The channels that a message takes. One that is named itself is the only one.
    pub fn of(
        &self,
        severity: Severity,
        labels: &BTreeMap<String, String>,
        named: Option<&str>,
    ) -> Vec<String> {
        let fits = |route: &&Route| {
            severity >= route.severity
                && route.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
        };
        let mut found: Vec<String> = match named {
            Some(name) => vec![name.to_owned()],
            None => self.routes.iter().filter(fits).flat_map(|r| r.channels.clone()).collect(),
        };
        found.retain(|name| self.channels.contains(name));
        found.sort();
        found.dedup();
        found
    }
}

fn defaults(channels: &BTreeMap<String, ChannelEntry>) -> Vec<Route> {
    let least = |kind| match kind {
        ChannelKind::Slack | ChannelKind::Webhook => Severity::Warning,
        ChannelKind::Pagerduty | ChannelKind::Email => Severity::Critical,
    };
    let route = |(name, entry): (&String, &ChannelEntry)| Route {
        severity: least(entry.kind),
        labels: BTreeMap::new(),
        channels: vec![name.clone()],
    };
    channels.iter().map(route).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn channels() -> BTreeMap<String, ChannelEntry> {
        let entry = |kind: &str| serde_json::from_value(json!({ "kind": kind })).unwrap();
        [("chat", "slack"), ("pager", "pagerduty"), ("hook", "webhook")]
            .map(|(name, kind)| (name.to_owned(), entry(kind)))
            .into()
    }

    #[test]
    fn severity_and_labels_choose() {
        let none = BTreeMap::new();
        let by_default = Routes::new(&AlertsConfig::default(), &channels());
        assert_eq!(by_default.of(Severity::Info, &none, None), Vec::<String>::new());
        assert_eq!(by_default.of(Severity::Warning, &none, None), ["chat", "hook"]);
        assert_eq!(by_default.of(Severity::Critical, &none, None), ["chat", "hook", "pager"]);
        assert_eq!(by_default.of(Severity::Info, &none, Some("pager")), ["pager"]);
        let config: AlertsConfig = serde_json::from_value(json!({ "routes": [
            { "severity": "info", "labels": { "workflow": "heal" }, "channels": ["chat"] },
            { "severity": "critical", "channels": ["pager", "nosuch"] },
        ] }))
        .unwrap();
        let routes = Routes::new(&config, &channels());
        let heal = BTreeMap::from([("workflow".to_owned(), "heal".to_owned())]);
        assert_eq!(routes.of(Severity::Info, &heal, None), ["chat"]);
        assert_eq!(routes.of(Severity::Critical, &heal, None), ["chat", "pager"]);
        assert_eq!(routes.of(Severity::Critical, &none, None), ["pager"]);
    }
}
