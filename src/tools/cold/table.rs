//! A table whose rows can leave it.

use serde::Deserialize;
use serde_json::Value;

use crate::kernel::{Bind, Failure, Ident, QualifiedName, Query, SqlFile};
use crate::sql_file;
use crate::tools::context::ReadContext;

/// The columns of a table.
pub(in crate::tools) static COLUMNS: SqlFile = sql_file!("shared/archive_columns");
/// The foreign keys that point at it.
pub(in crate::tools) static REFERENCES: SqlFile = sql_file!("shared/archive_references");

/// What a row is called in statements; no column is.
pub(super) const ROW: &str = "lakeops_row";

/// A column as the server describes it.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::tools) struct Column {
    pub(in crate::tools) name: String,
    pub(in crate::tools) type_name: String,
    key_position: Option<i32>,
    generated: bool,
    kind: String,
}

/// A foreign key of another table.
#[derive(Clone, Debug, Deserialize)]
pub(in crate::tools) struct Reference {
    pub(in crate::tools) constraint_name: String,
    pub(in crate::tools) child: String,
    child_columns: Vec<String>,
    parent_columns: Vec<String>,
}

/// A table whose rows can leave it.
#[derive(Clone, Debug)]
pub(in crate::tools) struct ColdTable {
    pub(in crate::tools) name: QualifiedName,
    pub(super) columns: Vec<Column>,
    pub(in crate::tools) references: Vec<Reference>,
}

impl ColdTable {
    /// Looks at a table: it must be an ordinary or partitioned one and have a primary key.
    pub(in crate::tools) async fn look(cx: &ReadContext<'_>, text: &str) -> Result<Self, Failure> {
        let name = QualifiedName::parse(text)
            .map_err(|error| Failure::permanent("archive::bad_name", error.to_string()))?;
        let columns: Vec<Column> = cx.pg.rows(&COLUMNS, &[Bind::Text(name.to_string())]).await?;
        let references = cx.pg.rows(&REFERENCES, &[Bind::Text(name.to_string())]).await?;
        let table = Self { name, columns, references };
        match table.columns.first().map(|column| column.kind.as_str()) {
            None => {
                let text = format!("there is no table `{}`", table.plain());
                Err(Failure::permanent("archive::no_such_table", text))
            }
            Some(_) if table.key().next().is_none() => {
                let text =
                    format!("`{}` has no primary key, so no row can be named", table.plain());
                Err(Failure::permanent("archive::no_key", text)
                    .with_help("give it one, or leave its rows where they are"))
            }
            Some(_) => Ok(table),
        }
    }

    pub(in crate::tools) fn plain(&self) -> String {
        self.name.plain()
    }

    /// The column of this name, or a failure.
    pub(in crate::tools) fn column(&self, name: &str) -> Result<&Column, Failure> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let text = format!("`{}` has no column `{name}`", self.plain());
            let known: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
            Failure::permanent("archive::no_such_column", text)
                .with_help(format!("its columns: {}", known.join(", ")))
        })
    }

    /// The columns that say when; the first of them is the likeliest to say when a row was touched last.
    pub(in crate::tools) fn moments(&self) -> Vec<&str> {
        const USUAL: [&str; 6] =
            ["updated_at", "modified_at", "last_modified", "created_at", "event_time", "ts"];
        let is_time = |column: &&Column| {
            column.type_name.starts_with("timestamp") || column.type_name == "date"
        };
        let mut found: Vec<&str> =
            self.columns.iter().filter(is_time).map(|column| column.name.as_str()).collect();
        found.sort_by_key(|name| {
            USUAL.iter().position(|usual| usual == name).unwrap_or(USUAL.len())
        });
        found
    }

    /// The columns of the primary key, in order.
    pub(super) fn key(&self) -> impl Iterator<Item = &Column> {
        let mut key: Vec<_> =
            self.columns.iter().filter(|column| column.key_position.is_some()).collect();
        key.sort_by_key(|column| column.key_position);
        key.into_iter()
    }

    /// The columns that can be written.
    pub(in crate::tools) fn writable(&self) -> Vec<String> {
        let own = self.columns.iter().filter(|column| !column.generated);
        own.map(|column| Ident::new(&column.name).to_string()).collect()
    }

    /// The key's columns as a list: `"a", "b"`, each with a prefix.
    pub(in crate::tools) fn key_list(&self, prefix: &str) -> String {
        let names: Vec<_> =
            self.key().map(|column| format!("{prefix}{}", Ident::new(&column.name))).collect();
        names.join(", ")
    }

    /// The key as an array of texts.
    pub(in crate::tools) fn key_array(&self, prefix: &str) -> String {
        let names: Vec<_> = self
            .key()
            .map(|column| format!("{prefix}{}::text", Ident::new(&column.name)))
            .collect();
        format!("array[{}]", names.join(", "))
    }

    /// The key as one text: a JSON array of texts.
    pub(super) fn key_text(&self, prefix: &str) -> String {
        format!("pg_catalog.to_jsonb({})::text", self.key_array(prefix))
    }

    /// What tells this version of a row from every other: its text and who wrote it.
    pub(super) fn version() -> String {
        format!("pg_catalog.hashtextextended({ROW}::text || '/' || {ROW}.xmin::text, 0)")
    }

    /// A key that is bound as an array of texts (`$1`), as the row that it is compared as.
    pub(super) fn bound_key(&self, place: usize) -> String {
        let parts: Vec<_> = self
            .key()
            .enumerate()
            .map(|(index, column)| {
                format!("(${place}::text[])[{}]::{}", index + 1, column.type_name)
            })
            .collect();
        format!("({})", parts.join(", "))
    }

    /// `keys (a, b, hash)`: bound arrays, one for each column of the key and one for the hashes.
    pub(super) fn bound_rows(&self) -> String {
        let mut arrays: Vec<String> = self
            .key()
            .enumerate()
            .map(|(index, column)| {
                format!("pg_catalog.unnest(${}::text[]::{}[])", index + 1, column.type_name)
            })
            .collect();
        arrays.push(format!("pg_catalog.unnest(${}::int8[])", arrays.len() + 1));
        format!("rows from ({}) as wanted ({}, lakeops_hash)", arrays.join(", "), self.key_list(""))
    }

    /// Joins bound rows to those of the table.
    pub(super) fn joins(&self) -> String {
        let parts: Vec<_> = self
            .key()
            .map(|column| {
                let name = Ident::new(&column.name);
                format!("{ROW}.{name} = wanted.{name}")
            })
            .collect();
        parts.join(" and ")
    }

    /// A condition for each foreign key: that no row of the other table points here.
    pub(super) fn nobody_points_here(&self) -> String {
        let condition = |reference: &Reference| {
            let Reference { child, .. } = reference;
            let points = reference.points();
            format!(" and not exists (select from {child} as child where {points})")
        };
        self.references.iter().map(condition).collect::<Vec<_>>().concat()
    }

    /// The first foreign key that points at a row of a batch, with one of those rows.
    pub(in crate::tools) async fn pointed_at(
        &self,
        cx: &ReadContext<'_>,
        (condition, binds): (&str, &[Bind]),
    ) -> Result<Option<(&Reference, String)>, Failure> {
        for reference in &self.references {
            let text = format!(
                "select {} as key from {} as {ROW} where {condition} \
                 and exists (select from {} as child where {}) limit 1",
                self.key_text(&format!("{ROW}.")),
                self.name,
                reference.child,
                reference.points(),
            );
            let query = Query::with_binds(text, binds.to_vec());
            let found = cx.pg.query("foreign keys at cold rows", &query).await?;
            if let Some(Value::String(key)) =
                found.into_iter().next().map(|mut row| row["key"].take())
            {
                return Ok(Some((reference, key)));
            }
        }
        Ok(None)
    }
}

impl Reference {
    fn points(&self) -> String {
        let pairs = self.child_columns.iter().zip(&self.parent_columns);
        let parts: Vec<_> = pairs
            .map(|(child, parent)| {
                format!("child.{} = {ROW}.{}", Ident::new(child), Ident::new(parent))
            })
            .collect();
        parts.join(" and ")
    }
}

#[cfg(test)]
pub(in crate::tools) mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::tools) fn orders() -> ColdTable {
        let column = |name: &str, kind: &str, key: Option<i32>, generated: bool| {
            let row = json!({"name": name, "type_name": kind, "key_position": key,
                "generated": generated, "kind": "r"});
            serde_json::from_value::<Column>(row).unwrap()
        };
        let reference = json!({"constraint_name": "items_order", "child": "public.items",
            "child_columns": ["order_id"], "parent_columns": ["id"]});
        ColdTable {
            name: QualifiedName::new("public", "orders"),
            columns: vec![
                column("id", "bigint", Some(1), false),
                column("shop", "character varying(9)", Some(0), false),
                column("created_at", "timestamp with time zone", None, false),
                column("updated_at", "timestamp with time zone", None, false),
                column("total", "numeric", None, true),
            ],
            references: vec![serde_json::from_value(reference).unwrap()],
        }
    }

    #[test]
    fn keys_are_written_in_their_own_order() {
        let table = orders();
        assert_eq!(table.key_list(""), "\"shop\", \"id\"");
        assert_eq!(
            table.bound_key(2),
            "(($2::text[])[1]::character varying(9), ($2::text[])[2]::bigint)"
        );
        assert_eq!(
            table.bound_rows(),
            "rows from (pg_catalog.unnest($1::text[]::character varying(9)[]), \
             pg_catalog.unnest($2::text[]::bigint[]), pg_catalog.unnest($3::int8[])) \
             as wanted (\"shop\", \"id\", lakeops_hash)"
        );
        assert_eq!(table.moments(), ["updated_at", "created_at"]);
        assert_eq!(table.writable().len(), 4, "what is generated cannot be written");
        assert!(table.nobody_points_here().contains("child.\"order_id\" = lakeops_row.\"id\""));
        assert!(table.column("nope").unwrap_err().help.unwrap().contains("updated_at"));
    }
}
