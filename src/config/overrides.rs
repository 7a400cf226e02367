//! The environment and the flags, as layers.

use std::path::{Path, PathBuf};

use serde_json::Value;
use toml::de::DeValue;

use super::Environment;
use super::check::{closest, schema_at};
use super::document::schema;
use super::layer::{Layer, Origin, Place};
use super::load::Problem;
use crate::kernel::Secret;

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--state`
    pub state: Option<PathBuf>,
    /// `--workflows`
    pub workflows: Option<PathBuf>,
    /// `--connection`
    pub connection: Option<String>,
    /// `--database-url`
    pub database_url: Option<Secret<String>>,
}

const PREFIX: &str = "LAKEOPS_";

/// Variables that are read elsewhere, or mean more than one value.
const SPECIAL: [&str; 7] = [
    "LAKEOPS_CACHE",
    "LAKEOPS_CONFIG",
    "LAKEOPS_DATABASE_URL",
    "LAKEOPS_ACTOR",
    "LAKEOPS_OUTPUT",
    "LAKEOPS_LOG_FORMAT",
    "LAKEOPS_LOG",
];

/// Short names of values that lie deeper.
const ALIASES: [(&str, &str); 2] = [
    ("LAKEOPS_POSTGRES_BIN", "LAKEOPS_LOCAL_POSTGRES__BINARIES"),
    ("LAKEOPS_POSTGRES_USER", "LAKEOPS_LOCAL_POSTGRES__USER"),
];

/// Variables with these prefixes belong to tests and to child processes of ours.
const RESERVED: [&str; 2] = ["LAKEOPS_TEST_", "LAKEOPS_KILL"];

/// Keys whose values are paths: what is not in a file is relative to the working directory.
const PATHS: [&str; 4] = ["state", "workflows", "sops", "sql"];

/// Reads `LAKEOPS_*`. A variable that nothing knows is a problem, unless the file itself names it (as
/// the source of a secret or a URL).
pub(super) fn environment(
    environment: &dyn Environment,
    file: &Layer,
    problems: &mut Vec<Problem>,
) -> Layer {
    let mut layer = Layer::default();
    let named = named_variables(&Value::Object(file.value.clone()));
    for (variable, text) in environment.vars(PREFIX) {
        let is_reserved = RESERVED.iter().any(|prefix| variable.starts_with(prefix));
        if is_reserved || SPECIAL.contains(&variable.as_str()) || named.contains(&variable) {
            continue;
        }
        let path = path_of(&variable);
        // What may name the actor is the file's to say, not the environment's own.
        let known = schema_at(schema(), &path).filter(|_| path != ["actor_from_env"]);
        let Some(wanted) = known else {
            problems.push(unknown(&variable, &path, schema()));
            continue;
        };
        let value = if PATHS.contains(&path.join(".").as_str()) {
            absolute(environment, Path::new(&text))
        } else {
            value_of(&text, wanted)
        };
        let keys: Vec<&str> = path.iter().map(String::as_str).collect();
        layer.set(&keys, value, Place::both(Origin::Environment { variable }));
    }
    layer
}

/// Reads the flags.
pub(super) fn flags(environment: &dyn Environment, flags: &Flags) -> Layer {
    let mut layer = Layer::default();
    let mut set = |key: &str, value: Value| {
        let flag = format!("--{key}");
        layer.set(&[key], value, Place::both(Origin::Flag { flag }));
    };
    if let Some(state) = &flags.state {
        set("state", absolute(environment, state));
    }
    if let Some(workflows) = &flags.workflows {
        set("workflows", absolute(environment, workflows));
    }
    if let Some(connection) = &flags.connection {
        set("connection", Value::String(connection.clone()));
    }
    layer
}

fn path_of(variable: &str) -> Vec<String> {
    let alias = ALIASES.iter().find(|(short, _)| *short == variable);
    let variable = alias.map_or(variable, |(_, long)| long);
    let rest = variable.strip_prefix(PREFIX).unwrap_or(variable);
    rest.split("__").map(str::to_lowercase).collect()
}

fn absolute(environment: &dyn Environment, path: &Path) -> Value {
    Value::String(environment.current_dir().join(path).display().to_string())
}

fn value_of(text: &str, wanted: &Value) -> Value {
    let as_text = || Value::String(text.to_owned());
    let is_text = wanted.get("type").is_none_or(|kind| kind == "string" || kind[0] == "string");
    if is_text {
        return as_text();
    }
    match DeValue::parse(text).map(toml::Spanned::into_inner) {
        Ok(DeValue::Boolean(flag)) => Value::Bool(flag),
        Ok(DeValue::Integer(digits)) => {
            digits.as_str().parse::<i64>().map_or_else(|_| as_text(), Value::from)
        }
        Ok(DeValue::Float(digits)) => {
            digits.as_str().parse::<f64>().map_or_else(|_| as_text(), Value::from)
        }
        Ok(DeValue::String(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_))
        | Err(_) => as_text(),
    }
}

/// The variables that the file names as sources.
fn named_variables(value: &Value) -> Vec<String> {
    let is_source = |key: &str| matches!(key, "env" | "url_env" | "token_env");
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| match value.as_str() {
                Some(name) if is_source(key) => vec![name.to_owned()],
                _ => named_variables(value),
            })
            .collect(),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Vec::new()
        }
    }
}

fn unknown(variable: &str, path: &[String], schema: &Value) -> Problem {
    let tables = path.split_last().map_or(&[][..], |(_, tables)| tables);
    let siblings = schema_at(schema, tables).map(super::check::known_keys).unwrap_or_default();
    let prefix = match tables {
        [] => PREFIX.to_owned(),
        tables => format!("{PREFIX}{}__", tables.join("__").to_uppercase()),
    };
    let plain = siblings
        .into_iter()
        .filter(|key| *key != "actor_from_env")
        .map(|key| format!("{prefix}{}", key.to_uppercase()));
    let candidates: Vec<String> =
        plain.chain(SPECIAL.iter().map(|name| (*name).to_owned())).collect();
    let near = closest(variable, candidates.iter().map(String::as_str));
    Problem {
        message: format!("the environment variable `{variable}` sets nothing that lakeops knows"),
        origin: Origin::Environment { variable: variable.to_owned() },
        source_line: None,
        hint: Some(near.map_or_else(
            || "settings are set as `LAKEOPS_SETTINGS__LIMITS__LOCK_TIMEOUT=5s`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        )),
    }
}
