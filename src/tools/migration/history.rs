//! What a database has already, beside what the files say.

use serde::{Deserialize, Serialize};

use super::source::Migration;
use super::version::Version;
use crate::kernel::{Bind, Failure, Query, SqlFile, SqlStatement, Timestamp};
use crate::postgres::PgReader;
use crate::sql_file;

pub(in crate::tools) const CREATE: SqlFile =
    sql_file!("provisioning/apply_schema_migration.create");
pub(in crate::tools) const DELETE: SqlFile =
    sql_file!("provisioning/apply_schema_migration.delete");
pub(in crate::tools) const INSERT: SqlFile =
    sql_file!("provisioning/apply_schema_migration.insert");
pub(in crate::tools) const LIST: SqlFile = sql_file!("shared/schema_migration_list");
pub(in crate::tools) const PENDING: SqlFile =
    sql_file!("provisioning/apply_schema_migration.pending");
pub(in crate::tools) const READY: SqlFile = sql_file!("shared/schema_migration_ready");

/// A migration that a database has.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(in crate::tools) struct Recorded {
    /// Its version.
    pub(in crate::tools) version: String,
    /// Its name.
    pub(in crate::tools) name: String,
    /// The checksum of what was carried out.
    pub(in crate::tools) checksum: String,
    /// When.
    pub(in crate::tools) applied_at: Option<Timestamp>,
    /// As which role.
    pub(in crate::tools) applied_by: Option<String>,
    /// By which run.
    pub(in crate::tools) run: Option<String>,
}

/// What a database has.
#[derive(Clone, Debug, Default)]
pub(in crate::tools) struct Recordings {
    /// Whether it has the table of migrations.
    pub(in crate::tools) is_set_up: bool,
    /// The migrations.
    pub(in crate::tools) rows: Vec<Recorded>,
}

impl Recordings {
    /// Reads what a database has.
    pub(in crate::tools) async fn read(reader: &PgReader) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            ready: bool,
        }
        if !reader.row::<Answer>(&READY, &[]).await?.ready {
            return Ok(Self::default());
        }
        Ok(Self { is_set_up: true, rows: reader.rows(&LIST, &[]).await? })
    }

    /// The record of a version, however it is written.
    pub(in crate::tools) fn of(&self, version: &Version) -> Option<&Recorded> {
        self.rows.iter().find(|row| Version::parse(&row.version).as_ref() == Some(version))
    }

    /// The newest version.
    pub(in crate::tools) fn newest(&self) -> Option<Version> {
        self.rows.iter().filter_map(|row| Version::parse(&row.version)).max()
    }

    /// Whether it has exactly this migration.
    pub(in crate::tools) fn has(&self, migration: &Migration) -> bool {
        self.of(&migration.version).is_some_and(|row| row.checksum == migration.checksum())
    }
}

/// The migrations beside what a database has.
#[derive(Clone, Debug, Default)]
pub(in crate::tools) struct Standing {
    /// Those that it does not have, oldest first.
    pub(in crate::tools) pending: Vec<Migration>,
    /// Those that it has.
    pub(in crate::tools) applied: Vec<String>,
    /// Those whose file is another one than what was carried out.
    pub(in crate::tools) changed: Vec<String>,
    /// Those that it has and of which there is no file.
    pub(in crate::tools) unknown: Vec<String>,
}

/// Compares files with a database. PURE.
pub(in crate::tools) fn compare(migrations: Vec<Migration>, has: &Recordings) -> Standing {
    let mut standing = Standing::default();
    let is_known = |row: &Recorded| {
        let version = Version::parse(&row.version);
        migrations.iter().any(|one| Some(&one.version) == version.as_ref())
    };
    standing.unknown =
        has.rows.iter().filter(|row| !is_known(row)).map(|row| row.version.clone()).collect();
    for migration in migrations {
        match has.of(&migration.version) {
            None => standing.pending.push(migration),
            Some(row) if row.checksum == migration.checksum() => {
                standing.applied.push(migration.label);
            }
            Some(_) => standing.changed.push(migration.label),
        }
    }
    standing
}

/// Holds as long as nobody has carried the migration out.
pub(super) fn guard(migration: &Migration) -> Query {
    Query::with_binds(PENDING.body(), vec![Bind::Text(migration.version.to_string())])
}

/// Records a migration.
pub(super) fn record(migration: &Migration) -> SqlStatement {
    let values = [migration.version.to_string(), migration.name.clone(), migration.checksum()];
    SqlStatement::with_binds(INSERT.body(), values.map(Bind::Text).into())
}

/// Forgets a migration.
pub(super) fn forget(migration: &Migration) -> SqlStatement {
    SqlStatement::with_binds(DELETE.body(), vec![Bind::Text(migration.version.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: &str, sql: &str) -> Migration {
        Migration {
            version: Version::parse(version).unwrap(),
            name: "x".to_owned(),
            label: format!("{version}_x.sql"),
            sql: sql.to_owned(),
            down: None,
        }
    }

    fn recorded(version: &str, sql: &str) -> Recorded {
        Recorded {
            version: version.to_owned(),
            name: "x".to_owned(),
            checksum: migration(version, sql).checksum(),
            applied_at: None,
            applied_by: None,
            run: None,
        }
    }

    #[test]
    fn each_migration_has_one_standing() {
        let has = Recordings {
            is_set_up: true,
            rows: vec![recorded("1", "a"), recorded("0002", "b"), recorded("9", "z")],
        };
        let files = ["1", "2", "3"].map(|version| migration(version, "a"));
        let standing = compare(files.into(), &has);
        assert_eq!(standing.applied, ["1_x.sql"]);
        assert_eq!(standing.changed, ["2_x.sql"]);
        assert_eq!(standing.unknown, ["9"]);
        assert_eq!(standing.pending.len(), 1);
        assert_eq!(has.newest(), Version::parse("9"));
    }
}
