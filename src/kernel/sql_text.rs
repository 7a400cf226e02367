//! SQL as text: the reviewed files of `sql/`, and the one way to put a name into a statement.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One reviewed file of `sql/`, embedded at build time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlFile {
    /// Its name: the path below `sql/` without the ending, such as `health/monitor_connections`.
    pub name: &'static str,
    /// Its text, with the comment header.
    pub text: &'static str,
}

/// Embeds `sql/<name>.sql` and remembers its name.
#[macro_export]
macro_rules! sql_file {
    ($name:literal) => {
        $crate::kernel::SqlFile {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/sql/", $name, ".sql")),
        }
    };
}

impl SqlFile {
    /// Its statement without the comment header: what a change carries and a person approves.
    pub fn body(&self) -> &'static str {
        let mut rest = self.text;
        while let Some((_, after)) = rest.split_once('\n').filter(|_| rest.starts_with("--")) {
            rest = after;
        }
        rest.trim()
    }

    /// The value of a key of the comment header (`-- purpose: …`), its continuation lines joined.
    pub fn header(&self, key: &str) -> Option<String> {
        Self::header_of(self.text, key)
    }

    /// The same for a text that is no embedded file.
    pub fn header_of(text: &str, key: &str) -> Option<String> {
        let mut found: Option<String> = None;
        for line in text.lines() {
            let Some(comment) = line.strip_prefix("--") else { break };
            if let Some(value) = found.as_mut() {
                let Some(more) = comment.strip_prefix("   ") else { break };
                value.push(' ');
                value.push_str(more.trim());
            } else if let Some(value) =
                comment.trim_start().strip_prefix(key).and_then(|rest| rest.strip_prefix(':'))
            {
                found = Some(value.trim().to_owned());
            }
        }
        found
    }

    /// The name of each value that the header of a text lists, with all that it says of it:
    /// `-- params: $1 most int8, $2 …`; `None`: it has no such line.
    pub fn params_of(text: &str) -> Option<Vec<(String, String)>> {
        let header = Self::header_of(text, "params")?;
        let mut params: Vec<(String, String)> = Vec::new();
        for part in header.split(',') {
            let listed = part.trim().strip_prefix('$');
            if let Some((_, about)) = listed.and_then(|it| it.split_once(char::is_whitespace)) {
                let about = about.trim_start();
                let name = about.split(char::is_whitespace).next().unwrap_or(about);
                params.push((name.to_owned(), about.to_owned()));
            } else if let Some((_, about)) = params.last_mut() {
                // The comma stands in what is said of it.
                about.push(',');
                about.push_str(part);
            }
        }
        Some(params)
    }
}

/// An identifier, quoted when written: the only way in which a name enters a statement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(String);

impl Ident {
    /// Takes a name as it stands in the catalog (unquoted, case kept).
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name as it stands in the catalog.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('\0', "").replace('"', "\"\""))
    }
}

/// A schema-qualified name, each part quoted when written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QualifiedName {
    /// The schema.
    pub schema: Ident,
    /// The object in it.
    pub name: Ident,
}

/// A text that does not name an object of a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a qualified name; write `schema.name`, with double quotes around odd parts")]
pub struct NameError(String);

impl QualifiedName {
    /// Joins a schema and a name as they stand in the catalog.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: Ident::new(schema), name: Ident::new(name) }
    }

    /// Reads `schema.name`. Unquoted parts are folded to lower case, as PostgreSQL does.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let parts = split_name(text).ok_or_else(|| NameError(text.to_owned()))?;
        match parts.as_slice() {
            [schema, name] => Ok(Self::new(schema, name)),
            _ => Err(NameError(text.to_owned())),
        }
    }

    /// `schema.name` for people, without quotes.
    pub fn plain(&self) -> String {
        format!("{}.{}", self.schema.as_str(), self.name.as_str())
    }
}

impl fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

fn split_name(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut chars = text.trim().chars().peekable();
    loop {
        let mut part = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next()? {
                    '"' if chars.next_if_eq(&'"').is_some() => part.push('"'),
                    '"' => break,
                    c => part.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                part.extend(c.to_lowercase());
            }
        }
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match chars.next() {
            None => return Some(parts),
            Some('.') => {}
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(Ident::new("a\"b").to_string(), "\"a\"\"b\"");
        let name = QualifiedName::parse("Public.\"Odd \"\"Name\"").unwrap();
        assert_eq!(name.to_string(), "\"public\".\"Odd \"\"Name\"");
        assert_eq!(name.plain(), "public.Odd \"Name");
    }

    #[test]
    fn bad_names_are_refused() {
        for text in ["", "t", "a.b.c", "a.", ".b", "a b.c", "\"a.b", "a.\"\"", "a;drop.b"] {
            assert!(QualifiedName::parse(text).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn header_keys_are_found() {
        let file = SqlFile {
            name: "x",
            text: "-- purpose: count things\n--   over two lines\n-- params: none\nselect 1\n",
        };
        assert_eq!(file.header("purpose").as_deref(), Some("count things over two lines"));
        assert_eq!(file.header("params").as_deref(), Some("none"));
        assert_eq!(file.header("columns"), None);
        assert_eq!(file.body(), "select 1");
    }

    #[test]
    fn listed_values_keep_the_commas_of_what_is_said_of_them() {
        let text = "-- params: $1 pid int8, $2 states text[] (one, or all)\nselect $1";
        let listed = SqlFile::params_of(text).unwrap();
        let listed: Vec<(&str, &str)> = listed.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(listed, [("pid", "pid int8"), ("states", "states text[] (one, or all)")]);
        assert_eq!(SqlFile::params_of("-- params: none\nselect 1"), Some(Vec::new()));
        assert_eq!(SqlFile::params_of("select 1"), None);
    }
}
