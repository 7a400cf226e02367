//! `[secrets]`: where the values behind `${{ secrets.NAME }}` come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Environment;
use crate::kernel::Secret;
use crate::kernel::secret::{Redactor, ShortSecret};

/// A secret as it is written: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretEntry {
    /// The environment variable that holds it.
    pub env: Option<String>,
    /// The file that holds it; white space at its end is cut off.
    pub file: Option<String>,
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// This environment variable.
    Variable(String),
    /// This file.
    File(PathBuf),
}

impl SecretEntry {
    /// Checks the entry. Relative files are below `root`.
    pub fn resolve(&self, root: &Path) -> Result<SecretSource, String> {
        match (&self.env, &self.file) {
            (Some(name), None) => Ok(SecretSource::Variable(name.clone())),
            (None, Some(path)) => Ok(SecretSource::File(root.join(path))),
            _ => Err("a secret needs exactly one of `env` and `file`".to_owned()),
        }
    }
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Nobody configured it.
    #[error(
        "no secret `{name}` is configured; write `[secrets.{name}]` with `env` or `file`{known}"
    )]
    Unknown {
        /// The name.
        name: String,
        /// The names that are configured.
        known: String,
    },
    /// Its variable is not set.
    #[error("secret `{name}` comes from the environment variable `{variable}`, which is not set")]
    NoVariable {
        /// The secret.
        name: String,
        /// The variable.
        variable: String,
    },
    /// Its file cannot be read.
    #[error("secret `{name}` comes from {path}, which cannot be read")]
    NoFile {
        /// The secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could not be masked.
    #[error(transparent)]
    Short(#[from] ShortSecret),
}

/// Looks secrets up. Whatever it hands out is known to the redactor first.
#[derive(Clone)]
pub struct Secrets {
    sources: Arc<BTreeMap<String, SecretSource>>,
    environment: Arc<dyn Environment>,
    redactor: Redactor,
}

impl Secrets {
    /// Secrets from these sources. Those that can be had now are masked from now on, whether or not
    /// anything asks for them.
    pub fn new(
        sources: BTreeMap<String, SecretSource>,
        environment: Arc<dyn Environment>,
        redactor: Redactor,
    ) -> Self {
        let secrets = Self { sources: Arc::new(sources), environment, redactor };
        for name in secrets.names() {
            // What is missing or too short is told to who asks for it.
            let _masked = secrets.get(name);
        }
        secrets
    }

    /// The configured names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.keys().map(String::as_str)
    }

    /// What masks them.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// A secret by name.
    pub fn get(&self, name: &str) -> Result<Secret<String>, SecretError> {
        let source = self.sources.get(name).ok_or_else(|| self.unknown(name))?;
        let value = match source {
            SecretSource::Variable(variable) => {
                self.environment.var(variable).ok_or_else(|| SecretError::NoVariable {
                    name: name.to_owned(),
                    variable: variable.clone(),
                })?
            }
            SecretSource::File(path) => std::fs::read_to_string(path)
                .map(|text| text.trim_end().to_owned())
                .map_err(|source| SecretError::NoFile {
                    name: name.to_owned(),
                    path: path.clone(),
                    source,
                })?,
        };
        self.redactor.register(name, &value)?;
        Ok(Secret::new(value))
    }

    fn unknown(&self, name: &str) -> SecretError {
        let names: Vec<_> = self.names().collect();
        let known = match names.as_slice() {
            [] => String::new(),
            names => format!(" (configured: {})", names.join(", ")),
        };
        SecretError::Unknown { name: name.to_owned(), known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FixedEnvironment;

    fn secrets(value: &str) -> Secrets {
        let mut environment = FixedEnvironment::default();
        environment.vars.insert("HOOK".into(), value.into());
        let sources = [("hook".to_owned(), SecretSource::Variable("HOOK".into()))];
        Secrets::new(sources.into(), Arc::new(environment), Redactor::default())
    }

    #[test]
    fn what_is_handed_out_is_masked() {
        let secrets = secrets("a-long-enough-value");
        assert_eq!(secrets.redactor().mask("<a-long-enough-value>"), "<[redacted]>");
        assert_eq!(secrets.get("hook").unwrap().expose(), "a-long-enough-value");
    }

    #[test]
    fn short_and_unknown_ones_are_refused() {
        assert!(matches!(secrets("short").get("hook"), Err(SecretError::Short(_))));
        let error = secrets("a-long-enough-value").get("hok").unwrap_err();
        assert!(error.to_string().contains("configured: hook"), "{error}");
    }
}
