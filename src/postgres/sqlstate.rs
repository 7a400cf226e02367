//! The one table from SQLSTATE to what may be done about it.

use super::error::StatementError;
use crate::kernel::RetryClass;

/// What a SQLSTATE means to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What may be done about it.
    pub class: RetryClass,
    /// A stable code.
    pub code: &'static str,
    /// What to do next.
    pub help: Option<&'static str>,
}

impl Verdict {
    pub(super) const fn permanent(code: &'static str) -> Self {
        Self { class: RetryClass::Permanent, code, help: None }
    }

    pub(super) const fn transient(code: &'static str) -> Self {
        Self { class: RetryClass::Transient, code, help: None }
    }

    pub(super) const fn help(self, help: &'static str) -> Self {
        Self { help: Some(help), ..self }
    }
}

/// Looks a SQLSTATE up; whole codes come before their class (the first two characters).
pub fn verdict(sqlstate: &str) -> Verdict {
    exact(sqlstate).unwrap_or_else(|| by_class(sqlstate))
}

/// Like [`verdict`]; one SQLSTATE stands for two things that only the message tells apart.
pub fn verdict_with(sqlstate: &str, message: &str) -> Verdict {
    if sqlstate == "57014" && message.contains("user request") {
        return Verdict::permanent("postgres::cancelled")
            .help("somebody cancelled the statement with pg_cancel_backend(); find out why");
    }
    verdict(sqlstate)
}

fn exact(sqlstate: &str) -> Option<Verdict> {
    let found = match sqlstate {
        "40001" => Verdict::transient("postgres::serialization_failure"),
        "40P01" => Verdict::transient("postgres::deadlock"),
        "40003" => Verdict {
            class: RetryClass::InDoubt,
            ..Verdict::permanent("postgres::completion_unknown")
        },
        "55P03" => Verdict {
            class: RetryClass::LockTimeout,
            ..Verdict::permanent("postgres::lock_timeout")
        }
        .help("another session holds the lock; `monitor_connections` names it"),
        "55006" => Verdict::transient("postgres::object_in_use"),
        "57014" => Verdict::permanent("postgres::statement_timeout")
            .help("allow more time (`limits.statement_timeout`, the step's `timeout`) or do less"),
        "25P03" => Verdict::transient("postgres::idle_in_transaction_timeout"),
        "25P04" => Verdict::permanent("postgres::transaction_timeout"),
        "57P01" | "57P02" => Verdict::transient("postgres::session_ended"),
        "57P03" => Verdict::transient("postgres::cannot_connect_now"),
        "57P04" => Verdict::permanent("postgres::database_dropped"),
        "57P05" => Verdict::transient("postgres::idle_session_timeout"),
        "08P01" => Verdict::permanent("postgres::protocol"),
        "53100" => Verdict::permanent("postgres::disk_full")
            .help("free or add disk space before anything else"),
        "53200" => Verdict::transient("postgres::out_of_memory"),
        "53300" => Verdict::transient("postgres::too_many_connections")
            .help("`monitor_connections` shows who holds the connections"),
        "53400" => Verdict::transient("postgres::configuration_limit"),
        "42501" => Verdict::permanent("postgres::missing_privilege"),
        "25006" => Verdict::permanent("postgres::read_only")
            .help("reads run in READ ONLY transactions; changes are made by write tools"),
        "25001" => Verdict::permanent("postgres::not_in_transaction")
            .help("propose the statement as one that runs outside a transaction"),
        "42P01" => Verdict::permanent("postgres::no_such_table"),
        "42703" => Verdict::permanent("postgres::no_such_column"),
        "42883" => Verdict::permanent("postgres::no_such_function"),
        "42704" => Verdict::permanent("postgres::no_such_object"),
        "3D000" => Verdict::permanent("postgres::no_such_database"),
        "3F000" => Verdict::permanent("postgres::no_such_schema"),
        "42601" => Verdict::permanent("postgres::syntax"),
        "42710" | "42P07" | "42P06" | "42P04" | "42701" | "42723" => {
            Verdict::permanent("postgres::already_exists")
        }
        "55000" => Verdict::permanent("postgres::wrong_state"),
        "0A000" => Verdict::permanent("postgres::not_supported"),
        "72000" => Verdict::transient("postgres::snapshot_too_old"),
        "XX001" | "XX002" => Verdict::permanent("postgres::data_corrupted")
            .help("stop and take a copy before anything else; the server found damaged data"),
        _ => return None,
    };
    Some(found)
}

fn by_class(sqlstate: &str) -> Verdict {
    match sqlstate.get(..2).unwrap_or_default() {
        "08" => Verdict::transient("postgres::connection_lost"),
        "28" => Verdict::permanent("postgres::authentication")
            .help("check user, password or token of the connection; `lakeops doctor` tries it"),
        "40" => Verdict::transient("postgres::transaction_rolled_back"),
        "53" => Verdict::transient("postgres::out_of_resources"),
        "22" => Verdict::permanent("postgres::bad_value"),
        "23" => Verdict::permanent("postgres::constraint_violated"),
        "58" => Verdict::permanent("postgres::system_error"),
        "XX" => Verdict::permanent("postgres::internal_error"),
        _ => Verdict::permanent("postgres::statement_failed"),
    }
}

/// What to do about a statement that the server refused; for a missing privilege, the GRANT.
pub(super) fn advice(error: &StatementError) -> Option<String> {
    if error.sqlstate == "42501" {
        return Some(privilege_advice(error));
    }
    let own = verdict_with(&error.sqlstate, &error.message).help.map(str::to_owned);
    own.or_else(|| error.hint.clone())
}

/// The server says `permission denied for <kind> <name>`, `must be owner of <kind> <name>`, or names
/// the role or attribute that it wants in its detail.
fn privilege_advice(error: &StatementError) -> String {
    if let Some(object) = error.message.strip_prefix("permission denied for ") {
        let (kind, name) = object.split_once(' ').unwrap_or((object, "…"));
        let privilege = match kind {
            "schema" => "usage",
            "function" | "procedure" | "routine" => "execute",
            "database" => "create",
            "sequence" => "usage, select",
            _ => "select",
        };
        let kind = match kind {
            "view" | "relation" => "table",
            other => other,
        };
        return format!(
            "as its owner: GRANT {privilege} ON {kind} {name} TO <the connection's user>; \
             a write needs insert, update, delete or ownership instead"
        );
    }
    if let Some(object) = error.message.strip_prefix("must be owner of ") {
        return format!("as a superuser: GRANT <owner of {object}> TO <the connection's user>");
    }
    let wanted = [error.detail.as_deref(), error.hint.as_deref(), Some(error.message.as_str())];
    let role = wanted.iter().flatten().find_map(|text| {
        text.split(['"', ' ', '\'']).find(|word| word.starts_with("pg_") && !word.contains('('))
    });
    match role {
        Some(role) => format!("as a superuser: GRANT {role} TO <the connection's user>"),
        None => error.detail.clone().unwrap_or_else(|| {
            "connect as a user who may do this, or GRANT the privilege to the connection's user"
                .to_owned()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Failure;
    use crate::postgres::PgError;

    fn refused(sqlstate: &str, message: &str, detail: Option<&str>) -> Failure {
        PgError::Statement(Box::new(StatementError {
            query: "q".into(),
            sqlstate: sqlstate.into(),
            message: message.into(),
            detail: detail.map(str::to_owned),
            hint: None,
            position: None,
            is_fatal: false,
        }))
        .into()
    }

    #[test]
    fn classes() {
        use RetryClass::{InDoubt, LockTimeout, Permanent, Transient};
        for (sqlstate, class, code) in [
            ("40001", Transient, "postgres::serialization_failure"),
            ("40P01", Transient, "postgres::deadlock"),
            ("40002", Transient, "postgres::transaction_rolled_back"),
            ("40003", InDoubt, "postgres::completion_unknown"),
            ("55P03", LockTimeout, "postgres::lock_timeout"),
            ("57014", Permanent, "postgres::statement_timeout"),
            ("57P01", Transient, "postgres::session_ended"),
            ("57P02", Transient, "postgres::session_ended"),
            ("57P03", Transient, "postgres::cannot_connect_now"),
            ("57P04", Permanent, "postgres::database_dropped"),
            ("08006", Transient, "postgres::connection_lost"),
            ("08P01", Permanent, "postgres::protocol"),
            ("53300", Transient, "postgres::too_many_connections"),
            ("53400", Transient, "postgres::configuration_limit"),
            ("53100", Permanent, "postgres::disk_full"),
            ("42501", Permanent, "postgres::missing_privilege"),
            ("25006", Permanent, "postgres::read_only"),
            ("42P01", Permanent, "postgres::no_such_table"),
            ("28P01", Permanent, "postgres::authentication"),
            ("23505", Permanent, "postgres::constraint_violated"),
            ("XX000", Permanent, "postgres::internal_error"),
            ("", Permanent, "postgres::statement_failed"),
            ("é", Permanent, "postgres::statement_failed"),
        ] {
            let found = verdict(sqlstate);
            assert_eq!((found.class, found.code), (class, code), "{sqlstate}");
        }
    }

    #[test]
    fn a_cancel_is_no_timeout() {
        let code = |message| refused("57014", message, None).code;
        assert_eq!(
            code("canceling statement due to statement timeout"),
            "postgres::statement_timeout"
        );
        assert_eq!(code("canceling statement due to user request"), "postgres::cancelled");
    }

    #[test]
    fn missing_privileges_name_the_grant() {
        let help = |message, detail| refused("42501", message, detail).help.unwrap();
        assert!(help("permission denied for table orders", None).contains("GRANT select ON table"));
        assert!(
            help("permission denied for function pg_reload_conf", None)
                .contains("GRANT execute ON function pg_reload_conf TO")
        );
        assert!(help("permission denied for view v", None).contains("ON table v"));
        assert!(
            help(
                "permission denied to terminate process",
                Some(
                    "Only roles with privileges of the role whose process is being terminated or \
                     with privileges of the \"pg_signal_backend\" role may terminate this process."
                )
            )
            .contains("GRANT pg_signal_backend TO")
        );
        assert!(help("must be owner of table orders", None).contains("owner of table orders"));
    }
}
