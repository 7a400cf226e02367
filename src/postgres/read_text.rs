//! Whether a text is one statement that only reads, and in which form it is sent.
//!
//! The wall against writes is the server's: `READ ONLY` transactions, one statement per message. What
//! that wall lets through is stopped here before it is sent: statements that end the transaction or set
//! up the session (`commit`, `prepare transaction`, `set`, `copy … to program`), and calls of functions
//! that act beyond the transaction (`pg_terminate_backend`, advisory locks, `dblink_exec`). This guards
//! against mistakes; against intent, only the privileges of the connection's user do.

use super::scan::{Token, tokens};

/// What is put in front of a query to have its rows as JSON.
pub(super) const PREFIX: &str = "select pg_catalog.to_jsonb(q) from (\n";
/// What is put behind it. The line break ends a comment.
const SUFFIX: &str = "\n) q";

/// Functions that act outside the transaction, by the start of their names.
const ACTING: &[&str] = &[
    "dblink",
    "lo_",
    "lowrite",
    "pg_advisory_",
    "pg_backup_",
    "pg_cancel_backend",
    "pg_clear_",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_",
    "pg_drop_replication_slot",
    "pg_file_",
    "pg_import_system_collations",
    "pg_log_backend_memory_contexts",
    "pg_log_standby_snapshot",
    "pg_logical_emit_message",
    "pg_logical_slot_get_",
    "pg_notify",
    "pg_prewarm",
    "pg_promote",
    "pg_reload_conf",
    "pg_replication_origin_",
    "pg_replication_slot_advance",
    "pg_rotate_logfile",
    "pg_start_backup",
    "pg_stat_reset",
    "pg_stat_statements_reset",
    "pg_stop_backup",
    "pg_switch_wal",
    "pg_sync_replication_slots",
    "pg_terminate_backend",
    "pg_try_advisory_",
    "pg_wal_replay_",
    "set_config",
];

/// A read in the form in which it is sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadText {
    /// A query, wrapped so that each row comes as one JSON object.
    Wrapped(String),
    /// EXPLAIN or SHOW, which stand in no FROM.
    Plain(String),
}

/// Takes a text as a read, or says what is wrong with it.
pub(super) fn read_text(text: &str) -> Result<ReadText, String> {
    let tokens = tokens(text);
    let end = tokens.iter().rposition(|token| token.text != ";").map_or(0, |last| last + 1);
    let (body, rest) = tokens.split_at(end);
    let text = match rest.first() {
        Some(semicolon) => text.get(..semicolon.start).unwrap_or(text),
        None => text,
    };
    if body.iter().any(|token| token.text == ";") {
        return Err("is more than one statement".to_owned());
    }
    if let Some(name) = acting_call(body) {
        return Err(format!("calls `{name}`, which acts outside the transaction"));
    }
    let Some(first) = body.iter().find(|token| token.text != "(") else {
        return Err("is empty".to_owned());
    };
    match first.text.to_ascii_lowercase().as_str() {
        "select" | "with" | "values" | "table" => {
            Ok(ReadText::Wrapped(format!("{PREFIX}{text}{SUFFIX}")))
        }
        "explain" | "show" => Ok(ReadText::Plain(text.to_owned())),
        _ => Err(format!("is not a read: it begins with `{}`", first.text)),
    }
}

/// A query of our own, whose rows shall come as JSON, whatever its functions do.
pub(super) fn with_json_rows(text: &str) -> String {
    format!("{PREFIX}{}{SUFFIX}", text.trim_end().trim_end_matches(';'))
}

fn acting_call(tokens: &[Token<'_>]) -> Option<String> {
    tokens.iter().zip(tokens.iter().skip(1)).find_map(|(name, next)| {
        let plain = name.text.trim_matches('"').to_ascii_lowercase();
        // Locks of the transaction end with it: a guard may take one.
        let acts = next.text == "("
            && !plain.contains("advisory_xact_lock")
            && ACTING.iter().any(|start| plain.starts_with(start));
        acts.then_some(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(text: &str) -> String {
        match read_text(text) {
            Ok(ReadText::Wrapped(sent)) => {
                let inner = sent.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
                inner.unwrap().to_owned()
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn queries_are_wrapped_without_their_semicolon() {
        assert_eq!(wrapped("select 1;"), "select 1");
        assert_eq!(wrapped("select 1; -- done\n ;"), "select 1");
        assert_eq!(wrapped("-- why; not\nselect 1 -- tail;"), "-- why; not\nselect 1 -- tail;");
        assert_eq!(wrapped("/* a /* b; */ c */ WITH x as (select 1) table x"), {
            "/* a /* b; */ c */ WITH x as (select 1) table x"
        });
        assert_eq!(wrapped("(values (1))"), "(values (1))");
        assert_eq!(wrapped("select ';', e'\\';', $x$;$x$, \"a;\"\"b\", $1;").len(), 40);
    }

    #[test]
    fn explain_and_show_go_as_they_are() {
        assert_eq!(read_text("SHOW all;"), Ok(ReadText::Plain("SHOW all".into())));
        assert!(matches!(read_text("explain select 1"), Ok(ReadText::Plain(_))));
    }

    #[test]
    fn all_else_is_refused() {
        for text in [
            "",
            ";",
            "-- select 1",
            "commit",
            "set transaction read write",
            "select 1; drop table t",
            "select 1) q; drop table t; --",
            "copy (select 1) to program 'x'",
            "prepare transaction 'x'",
            "do $$ begin end $$",
            "select pg_catalog.pg_terminate_backend(1)",
            "select \"pg_terminate_backend\" /* */ (1)",
            "select set_config('transaction_read_only', 'off', true)",
            "explain analyze select pg_advisory_lock(1)",
            "é",
            "'",
        ] {
            assert!(read_text(text).is_err(), "{text} was accepted");
        }
        assert!(read_text("select pg_terminate_backend from t").is_ok());
        assert!(read_text("select pg_try_advisory_xact_lock(1)").is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "[-/*$'\"eE\\\\;a-zé(\n ]{0,40}") {
            drop(read_text(&text));
        }
    }
}
