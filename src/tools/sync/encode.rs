//! Rows as text: the same on every server, whatever its settings. PURE.

use crate::kernel::Ident;

/// A column as an expression of text that depends on its value alone. Time zone, date style and the form
/// of binary values are settings of a session, so the types that they change are written in another way.
pub(super) fn encoded(name: &str, type_name: &str) -> String {
    let column = Ident::new(name);
    match type_name {
        "timestamp with time zone" => format!("extract(epoch from {column})::text"),
        "timestamp without time zone" | "date" => {
            format!("pg_catalog.to_jsonb({column}) #>> '{{}}'")
        }
        "bytea" => format!("pg_catalog.encode({column}, 'hex')"),
        "json" => format!("{column}::jsonb::text"),
        "interval" => format!("pg_catalog.justify_interval({column})::text"),
        _ => format!("{column}::text"),
    }
}

/// Several columns as one text: an array's text form quotes what is ambiguous, and tells null from
/// `'NULL'`.
pub(super) fn joined(columns: &[(String, String)]) -> String {
    let parts: Vec<String> = columns.iter().map(|(name, kind)| encoded(name, kind)).collect();
    match parts.as_slice() {
        [one] => one.clone(),
        _ => format!("(array[{}]::text[])::text", parts.join(", ")),
    }
}

/// A hash of 64 bits. `hashtextextended` is what hash partitioning relies on: it is the same on every
/// server.
pub(super) fn hash(text: &str, seed: u8) -> String {
    format!("pg_catalog.hashtextextended(coalesce({text}, ''), {seed})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_session_do_not_matter() {
        assert_eq!(encoded("at", "timestamp with time zone"), "extract(epoch from \"at\")::text");
        assert_eq!(encoded("o\"dd", "text"), "\"o\"\"dd\"::text");
        let columns =
            [("a".to_owned(), "integer".to_owned()), ("b".to_owned(), "bytea".to_owned())];
        assert_eq!(joined(&columns[..1]), "\"a\"::text");
        let both = "(array[\"a\"::text, pg_catalog.encode(\"b\", 'hex')]::text[])::text";
        assert_eq!(joined(&columns), both);
    }
}
