//! Hot and cold rows as one view: its text, in Unity Catalog and in PostgreSQL. PURE.

use super::table::{ColdTable, Column};
use crate::kernel::{Digest, Failure, Ident, QualifiedName};

/// A view: what is selected, and what tells this text from every other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tools) struct View {
    /// The query.
    pub(in crate::tools) query: String,
    /// What stands beside it as a comment: it ends with a digest of the query.
    pub(in crate::tools) comment: String,
    /// Columns whose values can lose something there, each with how.
    pub(in crate::tools) approximate: Vec<String>,
}

impl View {
    fn new(table: &ColdTable, query: String, approximate: Vec<String>) -> Self {
        let digest = Digest::of_value(&serde_json::Value::String(query.clone()));
        let short = digest.as_str().get(..12).unwrap_or_default();
        let comment = format!("hot and cold rows of {}; lakeops {short}", table.plain());
        Self { query, comment, approximate }
    }
}

/// The view over a registered database and the archive beside it, in the SQL of Databricks.
///
/// `hot` is the catalogue that the database is registered as, `cold` the table of copies.
pub(in crate::tools) fn in_unity_catalog(
    table: &ColdTable,
    hot: &str,
    cold: &str,
) -> Result<View, Failure> {
    let mut approximate = Vec::new();
    let (mut of_table, mut of_copies) = (Vec::new(), Vec::new());
    for column in &table.columns {
        let name = quoted(&column.name)?;
        let Spark { kind, is_binary, loses } = Spark::of(column);
        approximate.extend(loses.map(|how| format!("{}: {how}", column.name)));
        of_table.push(format!("CAST(h.{name} AS {kind}) AS {name}"));
        let text = format!("get_json_object(a.`row`, '{}')", path(&column.name));
        of_copies.push(if is_binary {
            format!("unhex(substring({text}, 3)) AS {name}")
        } else {
            format!("CAST({text} AS {kind}) AS {name}")
        });
    }
    let (schema, name) = (table.name.schema.as_str(), table.name.name.as_str());
    let source = table.plain();
    // It enters the text between single quotes.
    plain(&source)?;
    let query = format!(
        "SELECT {hot_columns}\nFROM {hot}.{schema}.{name} AS h\nUNION ALL\nSELECT {cold_columns}\n\
         FROM {cold} AS a\nJOIN {hot}.lakeops.archived_batch AS b ON b.batch_id = a.batch_id\n\
         WHERE a.source_table = '{source}' AND b.source_table = '{source}' AND b.restored_at IS NULL\n  \
         AND NOT array_contains(b.kept_hot, a.row_key)",
        hot_columns = of_table.join(", "),
        cold_columns = of_copies.join(", "),
        schema = quoted(schema)?,
        name = quoted(name)?,
    );
    Ok(View::new(table, query, approximate))
}

/// The view in PostgreSQL, where a foreign table shows the copies.
pub(in crate::tools) fn in_postgres(table: &ColdTable, foreign: &QualifiedName) -> View {
    let list = |prefix: &str| {
        let names =
            table.columns.iter().map(|column| format!("{prefix}{}", Ident::new(&column.name)));
        names.collect::<Vec<_>>().join(", ")
    };
    let name = &table.name;
    let query = format!(
        "select {hot} from {name} as hot\nunion all\nselect {cold}\nfrom {foreign} as a\n\
         join lakeops.archived_batch as b on b.batch_id = a.batch_id\n\
         cross join lateral pg_catalog.jsonb_populate_record(null::{name}, a.row::jsonb) as cold\n\
         where a.source_table = {source} and b.source_table = {source} and b.restored_at is null\n  \
         and a.row_key <> all (b.kept_hot)",
        hot = list("hot."),
        cold = list("cold."),
        source = literal(&table.plain()),
    );
    View::new(table, query, Vec::new())
}

/// A text between single quotes, as PostgreSQL reads it.
pub(in crate::tools) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// A name that can stand in a statement of Databricks: between backticks, and within a path of JSON.
fn quoted(name: &str) -> Result<String, Failure> {
    plain(name)?;
    Ok(format!("`{name}`"))
}

/// Where a column is in the JSON of a row.
fn path(name: &str) -> String {
    if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return format!("$.{name}");
    }
    format!("$[\\'{name}\\']")
}

fn plain(name: &str) -> Result<(), Failure> {
    if name.contains(['`', '\'', '\\', ']', '\n']) {
        let text = format!("the name `{name}` cannot be written into a view of Unity Catalog");
        return Err(Failure::permanent("unified_view::name", text)
            .with_help("rename it, or read both sides with `lakeops history query`"));
    }
    Ok(())
}

/// What a type of PostgreSQL is there.
struct Spark {
    kind: String,
    is_binary: bool,
    loses: Option<&'static str>,
}

impl Spark {
    fn of(column: &Column) -> Self {
        let kind = column.type_name.as_str();
        let (base, size) = kind.split_once('(').unwrap_or((kind, ""));
        let is_list = kind.ends_with("[]");
        let (kind, loses) = match base.trim() {
            _ if is_list => ("STRING".to_owned(), Some("a list is a text")),
            "smallint" => ("SMALLINT".to_owned(), None),
            "integer" => ("INT".to_owned(), None),
            "bigint" => ("BIGINT".to_owned(), None),
            "real" => ("FLOAT".to_owned(), None),
            "double precision" => ("DOUBLE".to_owned(), None),
            "boolean" => ("BOOLEAN".to_owned(), None),
            "date" => ("DATE".to_owned(), None),
            "bytea" => ("BINARY".to_owned(), None),
            "numeric" => numeric(size.trim_end_matches(')')),
            // `timestamp(3) with time zone` has its size in the middle.
            "timestamp with time zone" => ("TIMESTAMP".to_owned(), None),
            "timestamp" if size.ends_with("with time zone") => ("TIMESTAMP".to_owned(), None),
            "timestamp" | "timestamp without time zone" => ("TIMESTAMP_NTZ".to_owned(), None),
            "text" | "character varying" | "character" | "uuid" | "name" => {
                ("STRING".to_owned(), None)
            }
            _ => ("STRING".to_owned(), Some("its type is a text there")),
        };
        Self { is_binary: kind == "BINARY", kind, loses }
    }
}

/// Numbers of at most 38 digits are exact there.
fn numeric(size: &str) -> (String, Option<&'static str>) {
    let mut parts = size.split(',').map(|part| part.trim().parse::<i32>());
    match (parts.next(), parts.next()) {
        (Some(Ok(digits @ 1..=38)), None) => (format!("DECIMAL({digits},0)"), None),
        (Some(Ok(digits @ 1..=38)), Some(Ok(scale))) if (0..=digits).contains(&scale) => {
            (format!("DECIMAL({digits},{scale})"), None)
        }
        _ => ("DECIMAL(38,18)".to_owned(), Some("digits after the 18th are cut off")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::orders;
    use super::*;

    #[test]
    fn both_sides_have_the_same_columns_and_types() {
        let view = in_unity_catalog(&orders(), "shop", "ops.lakebase_ops.archived_rows").unwrap();
        let sides: Vec<&str> = view.query.split("UNION ALL").collect();
        for kind in ["AS BIGINT) AS `id`", "AS STRING) AS `shop`", "AS TIMESTAMP) AS `updated_at`"]
        {
            assert!(sides.iter().all(|side| side.contains(kind)), "{kind}: {}", view.query);
        }
        assert!(view.query.contains("FROM shop.`public`.`orders` AS h"), "{}", view.query);
        assert!(view.query.contains("NOT array_contains(b.kept_hot, a.row_key)"));
        assert_eq!(view.approximate, ["total: digits after the 18th are cut off"]);
        let other = in_unity_catalog(&orders(), "shop2", "ops.lakebase_ops.archived_rows").unwrap();
        assert_ne!(view.comment, other.comment);
    }

    #[test]
    fn names_that_cannot_be_quoted_are_refused() {
        for name in ["a`b", "a'b", "a]b", "a\\b"] {
            assert_eq!(quoted(name).unwrap_err().code, "unified_view::name", "{name}");
        }
        assert_eq!((path("id").as_str(), path("a b").as_str()), ("$.id", "$[\\'a b\\']"));
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\b"), "E'a\\\\b'");
    }

    #[test]
    fn numbers_keep_their_size_where_they_can() {
        assert_eq!(numeric("12,2"), ("DECIMAL(12,2)".to_owned(), None));
        assert_eq!(numeric("9"), ("DECIMAL(9,0)".to_owned(), None));
        assert!(numeric("").1.is_some() && numeric("50,2").1.is_some());
    }

    #[test]
    fn in_postgres_a_foreign_table_is_joined() {
        let view = in_postgres(&orders(), &QualifiedName::new("lake", "archived_rows"));
        assert!(view.query.contains("from \"lake\".\"archived_rows\" as a"), "{}", view.query);
        assert!(view.query.contains("a.row_key <> all (b.kept_hot)"), "{}", view.query);
        assert_eq!(view.query.matches("\"shop\"").count(), 2);
    }
}
