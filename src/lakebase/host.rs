//! The address of a workspace. PURE.

use std::fmt;
use std::net::IpAddr;

use url::Url;

/// The address of a workspace: scheme, host and port. Plain HTTP only on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspaceHost(Url);

/// A text that is no address of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not a URL with a host.
    #[error("`{text}` is no address of a workspace ({why})")]
    NotAnAddress {
        /// The text.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// A token would cross the network in clear.
    #[error("`{host}` would be reached without TLS, which only this machine may be")]
    InClear {
        /// The host.
        host: String,
    },
}

impl WorkspaceHost {
    /// Reads an address as people write it: with or without `https://`, with whatever path the browser
    /// showed.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let wrong = |why: &dyn fmt::Display| HostError::NotAnAddress {
            text: shown(text),
            why: why.to_string(),
        };
        let text = text.trim();
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let mut url = Url::parse(&full).map_err(|error| wrong(&error))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(wrong(&format_args!("its scheme is `{}`", url.scheme())));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong(&"it names no host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(&"a name or a password does not belong in it"));
        }
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        if !may_carry_secrets(&url) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Err(HostError::InClear { host });
        }
        Ok(Self(url))
    }

    /// The URL of a path, absolute on the host, query included.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.as_str())
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn as_str(&self) -> &str {
        self.0.as_str().trim_end_matches('/')
    }

    /// Whether it is on this machine.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.0)
    }

    /// Whether it is reached without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }
}

/// What stands in front of an `@` may be a password.
fn shown(text: &str) -> String {
    text.rsplit('@').next().unwrap_or(text).to_owned()
}

/// Whether a URL may be sent a secret: by TLS, or to this machine.
pub(super) fn may_carry_secrets(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_loopback(url))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl fmt::Display for WorkspaceHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_people_write_them() {
        let read = |text: &str| WorkspaceHost::parse(text).unwrap().to_string();
        for text in [
            "dbc-1.cloud.databricks.com",
            "https://dbc-1.cloud.databricks.com/",
            " https://DBC-1.cloud.databricks.com/browse?o=123#x ",
        ] {
            assert_eq!(read(text), "https://dbc-1.cloud.databricks.com");
        }
        assert_eq!(read("http://127.0.0.1:8080/"), "http://127.0.0.1:8080");
        assert_eq!(read("http://[::1]:8080"), "http://[::1]:8080");
        let host = WorkspaceHost::parse("localhost:8443").unwrap();
        assert_eq!(host.url("/api?a=b"), "https://localhost:8443/api?a=b");
        assert!(host.is_loopback() && !host.is_plain());
    }

    #[test]
    fn secrets_do_not_cross_the_network_in_clear() {
        for text in
            ["http://dbc-1.cloud.databricks.com", "http://10.0.0.1", "http://localhost.evil"]
        {
            let error = WorkspaceHost::parse(text).unwrap_err();
            assert!(matches!(error, HostError::InClear { .. }), "{text}: {error}");
        }
        for text in ["", "https://", "ftp://h", "https://ann:sesame@h", "a b"] {
            let error = WorkspaceHost::parse(text).unwrap_err();
            assert!(!error.to_string().contains("sesame"), "{error}");
        }
    }
}
