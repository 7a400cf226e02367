//! Where migrations come from: a directory of files, or a list in the arguments.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::version::Version;
use crate::kernel::{Digest, Failure};

/// The largest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// One migration.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Migration {
    /// Its version.
    pub(in crate::tools) version: Version,
    /// Its name without version and ending.
    pub(in crate::tools) name: String,
    /// Where it was read, for messages: the file's name.
    pub(in crate::tools) label: String,
    /// Its text.
    pub(in crate::tools) sql: String,
    /// What gets back to before it, as somebody wrote and reviewed it.
    pub(in crate::tools) down: Option<String>,
}

impl Migration {
    /// SHA-256 of its text; line ends and space at its end do not count.
    pub(in crate::tools) fn checksum(&self) -> String {
        let text = self.sql.replace("\r\n", "\n");
        Digest::of_bytes(text.trim_end().as_bytes()).to_string()
    }
}

/// A migration in the arguments.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Inline {
    /// Its version: digits, with dots or hyphens between them.
    version: String,
    /// What it is called.
    name: String,
    /// Its statements.
    sql: String,
    /// What gets back to before it, losing nothing that was there before.
    #[serde(default)]
    down: Option<String>,
}

/// Which migrations are meant.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::tools) struct Source {
    /// A directory with `VERSION_NAME.sql` and, where there is one, `VERSION_NAME.down.sql`; relative
    /// to where `lakeops` is called.
    #[serde(default)]
    directory: Option<String>,
    /// Migrations by their text, in place of a directory.
    #[serde(default)]
    list: Vec<Inline>,
}

impl Source {
    /// The migrations, oldest version first.
    pub(in crate::tools) async fn read(&self) -> Result<Vec<Migration>, Failure> {
        let mut found = match (&self.directory, self.list.as_slice()) {
            (Some(directory), []) => in_directory(directory).await?,
            (None, []) => return Err(unsaid()),
            (None, list) => list.iter().map(inline).collect::<Result<_, _>>()?,
            (Some(_), _) => {
                return Err(wrong("say either `directory` or `list`, not both".to_owned()));
            }
        };
        found.sort_by(|one, other| one.version.cmp(&other.version));
        for pair in found.windows(2) {
            if let [one, other] = pair
                && one.version == other.version
            {
                let text = format!(
                    "`{}` and `{}` are both version {}",
                    one.label, other.label, one.version
                );
                return Err(wrong(text));
            }
        }
        Ok(found)
    }
}

fn wrong(text: String) -> Failure {
    Failure::permanent("migration::source", text)
}

fn unsaid() -> Failure {
    wrong("no migrations are named".to_owned())
        .with_help("name them: `migrations: { directory: migrations }`")
}

fn inline(one: &Inline) -> Result<Migration, Failure> {
    let version = Version::parse(&one.version).ok_or_else(|| {
        wrong(format!("`{}` is no version: digits, with dots between them", one.version))
    })?;
    Ok(Migration {
        version,
        name: one.name.clone(),
        label: format!("{}_{}", one.version, one.name),
        sql: one.sql.clone(),
        down: one.down.clone(),
    })
}

async fn in_directory(text: &str) -> Result<Vec<Migration>, Failure> {
    // A run may go on in a process that was started elsewhere; what has begun is not read again.
    let directory = std::path::absolute(text)
        .map_err(|error| wrong(format!("`{text}` is no directory: {error}")))?;
    let unreadable = |path: &Path, error: std::io::Error| {
        wrong(format!("`{}` cannot be read: {error}", path.display()))
    };
    let mut listed =
        tokio::fs::read_dir(&directory).await.map_err(|error| unreadable(&directory, error))?;
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    while let Some(entry) =
        listed.next_entry().await.map_err(|error| unreadable(&directory, error))?
    {
        let path = entry.path();
        if path.extension().is_some_and(|ending| ending == "sql")
            && let Ok(name) = entry.file_name().into_string()
        {
            files.insert(name, path);
        }
    }
    let mut texts = BTreeMap::new();
    for (name, path) in files {
        let size =
            tokio::fs::metadata(&path).await.map_err(|error| unreadable(&path, error))?.len();
        if size > MOST_BYTES {
            return Err(wrong(format!("`{name}` has {size} bytes, more than {MOST_BYTES}")));
        }
        let text =
            tokio::fs::read_to_string(&path).await.map_err(|error| unreadable(&path, error))?;
        texts.insert(name, text);
    }
    pair_up(texts)
}

/// Puts each file together with the one that undoes it.
fn pair_up(mut texts: BTreeMap<String, String>) -> Result<Vec<Migration>, Failure> {
    let is_down = |name: &str| name.ends_with(".down.sql");
    let ups: Vec<String> = texts.keys().filter(|name| !is_down(name)).cloned().collect();
    let mut found = Vec::new();
    for label in ups {
        let Some(sql) = texts.remove(&label) else { continue };
        let stem = label.trim_end_matches(".sql");
        let stem = stem.strip_suffix(".up").unwrap_or(stem);
        let down = texts.remove(&format!("{stem}.down.sql"));
        let (version, name) = stem.split_once('_').unwrap_or((stem, ""));
        let version = Version::parse(version).ok_or_else(|| {
            wrong(format!("`{label}` begins with no version"))
                .with_help("call it `VERSION_NAME.sql`, such as `0007_add_email.sql`")
        })?;
        found.push(Migration { version, name: name.to_owned(), sql, down, label });
    }
    match texts.into_keys().next() {
        None => Ok(found),
        Some(lonely) => Err(wrong(format!("`{lonely}` undoes a file that is not there"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> Result<Vec<Migration>, Failure> {
        pair_up(names.iter().map(|name| ((*name).to_owned(), format!("-- {name}"))).collect())
    }

    #[test]
    fn files_are_paired_with_what_undoes_them() {
        let found =
            pair(&["1_a.sql", "1_a.down.sql", "0002_b_c.up.sql", "0002_b_c.down.sql", "3.sql"])
                .unwrap();
        let told: Vec<_> = found
            .iter()
            .map(|one| (one.version.to_string(), one.name.as_str(), one.down.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                ("0002".to_owned(), "b_c", Some("-- 0002_b_c.down.sql")),
                ("1".to_owned(), "a", Some("-- 1_a.down.sql")),
                ("3".to_owned(), "", None),
            ]
        );
        let error = pair(&["1_a.sql", "2_b.down.sql"]).unwrap_err();
        assert!(error.message.contains("2_b.down.sql"), "{error}");
        let error = pair(&["add_email.sql"]).unwrap_err();
        assert!(error.message.contains("begins with no version"), "{error}");
    }

    #[tokio::test]
    async fn one_version_stands_once() {
        let source = |list: serde_json::Value| -> Source {
            serde_json::from_value(serde_json::json!({ "list": list })).unwrap()
        };
        let one =
            |version: &str| serde_json::json!({"version": version, "name": "x", "sql": "select 1"});
        let twice = source(serde_json::json!([one("7"), one("0007")]));
        assert!(twice.read().await.unwrap_err().message.contains("both version"));
        let sorted = source(serde_json::json!([one("10"), one("9")])).read().await.unwrap();
        assert_eq!(sorted[0].version.to_string(), "9");
        assert_eq!(Source::default().read().await.unwrap_err().code, "migration::source");
    }

    #[test]
    fn line_ends_do_not_count() {
        let of = |sql: &str| {
            Migration {
                version: Version::parse("1").unwrap(),
                name: String::new(),
                label: String::new(),
                sql: sql.to_owned(),
                down: None,
            }
            .checksum()
        };
        assert_eq!(of("select 1;\r\nselect 2;\r\n"), of("select 1;\nselect 2;"));
        assert_ne!(of("select 1"), of("select 2"));
    }
}
