//! Whether a text is one statement that only reads, and in which form it is sent.
//!
//! The wall against writes is the server's: `READ ONLY` transactions, one statement per message. What
//! that wall lets through is stopped here before it is sent: statements that end the transaction or set
//! up the session (`commit`, `prepare transaction`, `set`, `copy … to program`), and calls of functions
//! that act beyond the transaction (`pg_terminate_backend`, advisory locks, `dblink_exec`). This guards
//! against mistakes; against intent, only the privileges of the connection's user do.

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

fn acting_call(tokens: &[Token<'_>]) -> Option<String> {
    tokens.iter().zip(tokens.iter().skip(1)).find_map(|(name, next)| {
        let plain = name.text.trim_matches('"').to_ascii_lowercase();
        let acts = next.text == "(" && ACTING.iter().any(|start| plain.starts_with(start));
        acts.then_some(plain)
    })
}

/// A word, a quoted name, or one other character. Comments and string literals are left out.
struct Token<'a> {
    start: usize,
    text: &'a str,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let (length, is_token) = next(rest);
        if is_token {
            found.push(Token { start: at, text: rest.get(..length).unwrap_or_default() });
        }
        at += length;
    }
    found
}

/// The length in bytes of what comes next, and whether it counts.
fn next(rest: &str) -> (usize, bool) {
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let first = rest.chars().next().unwrap_or(' ');
    if first.is_whitespace() {
        (first.len_utf8(), false)
    } else if rest.starts_with("--") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (comment_length(rest), false)
    } else if rest.starts_with(['e', 'E']) && rest[1..].starts_with('\'') {
        (1 + quoted_length(&rest[1..], '\'', true), false)
    } else if first == '\'' {
        (quoted_length(rest, '\'', false), false)
    } else if first == '"' {
        (quoted_length(rest, '"', false), true)
    } else if let Some(length) = dollar_quoted_length(rest) {
        (length, false)
    } else if word(first) {
        (rest.find(|c| !word(c)).unwrap_or(rest.len()), true)
    } else {
        (first.len_utf8(), true)
    }
}

/// Block comments nest.
fn comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = rest.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// A doubled quote reads as the end of one literal and the start of the next: the same text is skipped.
fn quoted_length(rest: &str, quote: char, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            chars.next();
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

fn dollar_quoted_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('$')?;
    let tag = inner.split('$').next().filter(|tag| tag.len() < inner.len())?;
    let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    if !is_tag {
        return None;
    }
    let open = tag.len() + 2;
    let mark = rest.get(..open)?;
    Some(rest.get(open..)?.find(mark).map_or(rest.len(), |at| at + 2 * open))
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
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "[-/*$'\"eE\\\\;a-zé(\n ]{0,40}") {
            drop(read_text(&text));
        }
    }
}
