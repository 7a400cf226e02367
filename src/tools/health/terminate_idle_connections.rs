//! Ends sessions that have been idle for too long, above all those that are idle inside a transaction.
//!
//! Reads: `pg_stat_activity`, `pg_roles`.
//! Changes: ends each session by a statement of its own, which names the process, the instant at which
//! the session began and its state: nobody else can be hit.
//! Undo: an ended session cannot be given back; its client connects again.
//!
//! An idle session runs nothing that could be cancelled first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, Query, Risk, Span, SqlFile, SqlStatement,
};
use crate::sql_file;
use crate::tools::analysis::text::shorten;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Ending, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(TerminateIdleConnections));

static SESSIONS: SqlFile = sql_file!("health/terminate_idle_connections");
static END: SqlFile = sql_file!("health/terminate_idle_connections.end");
static GUARD: SqlFile = sql_file!("health/terminate_idle_connections.guard");

/// How our own sessions name themselves.
const OURS: &str = "lakeops";

struct TerminateIdleConnections;

/// Whom to end.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Sessions that are idle outside a transaction for at least this long are ended; `null` spares
    /// them.
    #[serde(default = "half_an_hour")]
    max_idle: Option<Span>,
    /// Sessions that are idle inside a transaction for at least this long are ended; `null` spares
    /// them.
    #[serde(default = "five_minutes")]
    max_idle_in_transaction: Option<Span>,
    /// Only these processes; by default all.
    #[serde(default)]
    sessions: Option<Vec<i32>>,
    /// Users whose sessions are spared.
    #[serde(default)]
    exclude_users: Vec<String>,
    /// Applications whose sessions are spared; `name*` spares all that begin with `name`.
    #[serde(default)]
    exclude_applications: Vec<String>,
    /// Whether sessions of superusers are ended too.
    #[serde(default)]
    include_superusers: bool,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
const fn half_an_hour() -> Option<Span> {
    Some(Span::from_secs(1800))
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the type of the field")]
const fn five_minutes() -> Option<Span> {
    Some(Span::from_secs(300))
}

/// A session as it was read; that of another user is hidden from those who may not see it.
#[derive(Clone, Deserialize)]
struct Row {
    pid: i32,
    backend_start: Option<String>,
    state: Option<String>,
    user_name: String,
    database_name: Option<String>,
    application: String,
    own: bool,
    superuser: bool,
    may_end: bool,
    idle_seconds: Option<f64>,
    xact_seconds: Option<f64>,
    query: String,
}

/// A session that is idle.
#[derive(Clone)]
struct Session {
    pid: i32,
    backend_start: String,
    state: String,
    user_name: String,
    database_name: Option<String>,
    application: String,
    own: bool,
    superuser: bool,
    may_end: bool,
    idle_seconds: f64,
    xact_seconds: Option<f64>,
    query: String,
}

/// What became of the sessions.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many sessions are gone.
    ended: u64,
    /// The sessions that were to be ended.
    sessions: Vec<Done>,
}

/// What became of one session.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Done {
    /// The process.
    pid: i32,
    /// The user.
    user: String,
    /// The application.
    application: String,
    /// What it was, such as `idle in transaction`.
    state: String,
    /// How long it had been idle.
    idle_seconds: f64,
    /// How its change ended; `moot` when it was gone or at work again.
    #[serde(default = "not_begun")]
    ending: Ending,
    /// Whether it is gone because of us.
    #[serde(default)]
    gone: bool,
}

const fn not_begun() -> Ending {
    Ending::NotBegun
}

impl WriteTool for TerminateIdleConnections {
    const META: ToolMeta = ToolMeta {
        name: "terminate_idle_connections",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Ends sessions that are idle for too long",
        sql: &[&SESSIONS, &END, &GUARD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let rows: Vec<Row> = cx.pg.rows(&SESSIONS, &[]).await?;
        judge(rows, &params)
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let sessions: Vec<_> = settled.iter().filter_map(done).collect();
        let ended = sessions.iter().filter(|session| session.gone).count() as u64;
        Output { ended, sessions }
    }
}

fn judge(rows: Vec<Row>, params: &Params) -> Result<ChangeSet, Failure> {
    let total = rows.len();
    let sessions: Vec<Session> = rows.into_iter().filter_map(visible).collect();
    let hidden = total - sessions.len();
    let mut chosen: Vec<_> =
        sessions.iter().filter_map(|session| choose(session, params)).collect();
    if let Some((session, _)) = chosen.iter().find(|(session, _)| !session.may_end) {
        return Err(forbidden(session));
    }
    // To propose nothing would say that nobody is idle.
    if chosen.is_empty() && hidden > 0 {
        return Err(blind(hidden));
    }
    chosen.sort_by(|(a, _), (b, _)| b.idle_seconds.total_cmp(&a.idle_seconds));
    Ok(ChangeSet::new(chosen.into_iter().map(|(session, limit)| change(session, limit)).collect()))
}

fn visible(row: Row) -> Option<Session> {
    Some(Session {
        pid: row.pid,
        backend_start: row.backend_start?,
        state: row.state?,
        user_name: row.user_name,
        database_name: row.database_name,
        application: row.application,
        own: row.own,
        superuser: row.superuser,
        may_end: row.may_end,
        idle_seconds: row.idle_seconds?,
        xact_seconds: row.xact_seconds,
        query: row.query,
    })
}

/// The session with the limit that it is over, unless it is spared.
fn choose<'a>(session: &'a Session, params: &Params) -> Option<(&'a Session, Span)> {
    let wanted = params.sessions.as_ref().is_none_or(|pids| pids.contains(&session.pid));
    let excluded = params.exclude_users.contains(&session.user_name)
        || params.exclude_applications.iter().any(|name| matches(name, &session.application));
    let ours = session.own || session.application.starts_with(OURS);
    if !wanted || excluded || ours || session.superuser && !params.include_superusers {
        return None;
    }
    let limit =
        if in_transaction(session) { params.max_idle_in_transaction } else { params.max_idle };
    limit
        .filter(|limit| session.idle_seconds >= limit.0.as_secs_f64())
        .map(|limit| (session, limit))
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn in_transaction(session: &Session) -> bool {
    session.state != "idle"
}

fn change(session: &Session, limit: Span) -> Change {
    // A transaction can be aborted while it is idle; it is no less idle then.
    let states = if in_transaction(session) {
        vec!["idle in transaction".to_owned(), "idle in transaction (aborted)".to_owned()]
    } else {
        vec!["idle".to_owned()]
    };
    let binds = vec![
        Bind::Int(session.pid.into()),
        Bind::Text(session.backend_start.clone()),
        Bind::TextArray(states),
        Bind::Float(limit.0.as_secs_f64()),
    ];
    let why = format!(
        "{} of {} is {} for {:.0} s (limit {limit}){}",
        name(&session.application),
        session.user_name,
        session.state,
        session.idle_seconds,
        session
            .xact_seconds
            .map(|age| format!(", transaction open for {age:.0} s"))
            .unwrap_or_default(),
    );
    let guard = Query::with_binds(GUARD.body(), binds.clone());
    // Alone: a transaction goes on seeing sessions as its first look, at the guard, saw them.
    let statement = SqlStatement::with_binds(END.body(), binds);
    let operation = Operation::Sql { statement, transactional: false };
    let mut change = Change::new(format!("session {}", session.pid), why, operation);
    change.risk = if in_transaction(session) { Risk::Medium } else { Risk::Low };
    change.guard = Some(guard);
    change.inverse = Inverse::Impossible {
        why: "an ended session is not given back; its client connects again".to_owned(),
    };
    change.independent = true;
    change.cost = [("sessions_ended".to_owned(), 1)].into();
    change.facts = json!({
        "pid": session.pid,
        "user": session.user_name,
        "application": session.application,
        "database": session.database_name,
        "state": session.state,
        "idle_seconds": session.idle_seconds,
        "query": shorten(&session.query),
    });
    change
}

fn name(application: &str) -> &str {
    if application.is_empty() { "an unnamed application" } else { application }
}

fn forbidden(session: &Session) -> Failure {
    let Session { pid, user_name, superuser, .. } = session;
    let message = format!("we may not end session {pid} of `{user_name}`");
    let help = if *superuser {
        "only a superuser ends a superuser's session; leave `include_superusers` out".to_owned()
    } else {
        "`grant pg_signal_backend to current_user`, or name the user in `exclude_users`".to_owned()
    };
    Failure::permanent("terminate_idle_connections::not_permitted", message).with_help(help)
}

fn blind(hidden: usize) -> Failure {
    let message = format!("what {hidden} sessions of other users do is hidden from us");
    Failure::permanent("terminate_idle_connections::not_visible", message)
        .with_help("`grant pg_read_all_stats to current_user`")
}

fn done(settled: &Settled<'_>) -> Option<Done> {
    let done: Done = serde_json::from_value(settled.change.facts.clone()).ok()?;
    let row = settled.receipt().and_then(|receipt| receipt.result.get(0));
    let gone = row.and_then(|row| row.get("ended")).and_then(serde_json::Value::as_bool);
    Some(Done { ending: settled.ending(), gone: gone.unwrap_or(false), ..done })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::kernel::{Receipt, Recovery, Settlement};

    fn session(pid: i32, extra: &Value) -> Row {
        let mut row = json!({
            "pid": pid, "backend_start": "2025-01-01T00:00:00.123456+00:00", "state": "idle",
            "user_name": "app", "database_name": "shop", "application": "web", "own": false,
            "superuser": false, "may_end": true, "idle_seconds": 4000.0, "xact_seconds": null,
            "query": "select 1",
        });
        for (key, value) in extra.as_object().unwrap() {
            row[key] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    fn propose(sessions: &[Row], params: Value) -> Result<Vec<i64>, Failure> {
        let set = judge(sessions.to_vec(), &serde_json::from_value(params).unwrap())?;
        Ok(set.changes.iter().map(|change| change.facts["pid"].as_i64().unwrap()).collect())
    }

    #[test]
    fn each_kind_of_idle_has_its_own_limit() {
        let in_transaction = |seconds: f64| json!({"state": "idle in transaction", "idle_seconds": seconds, "xact_seconds": seconds});
        let sessions = [
            session(1, &json!({"idle_seconds": 1799.0})),
            session(2, &json!({"idle_seconds": 1800.0})),
            session(3, &in_transaction(299.0)),
            session(4, &in_transaction(300.0)),
            session(5, &json!({"state": "idle in transaction (aborted)"})),
        ];
        assert_eq!(propose(&sessions, json!({})).unwrap(), [5, 2, 4]);
        assert_eq!(propose(&sessions, json!({"max_idle": null})).unwrap(), [5, 4]);
        let short = json!({"max_idle": null, "max_idle_in_transaction": "10s", "sessions": [3]});
        assert_eq!(propose(&sessions, short).unwrap(), [3]);
    }

    #[test]
    fn some_are_always_spared() {
        let sessions = [
            session(1, &json!({"own": true})),
            session(2, &json!({"application": "lakeops/abc"})),
            session(3, &json!({"superuser": true})),
            session(4, &json!({"user_name": "etl"})),
            session(5, &json!({"application": "pgbouncer-7"})),
            session(6, &json!({})),
        ];
        let spared = json!({"exclude_users": ["etl"], "exclude_applications": ["pgbouncer*"]});
        assert_eq!(propose(&sessions, spared).unwrap(), [6]);
        let superusers = json!({"include_superusers": true, "sessions": [1, 2, 3]});
        assert_eq!(propose(&sessions, superusers).unwrap(), [3]);
    }

    #[test]
    fn a_missing_privilege_is_refused_with_the_grant() {
        let sessions = [session(1, &json!({"may_end": false}))];
        let error = propose(&sessions, json!({})).unwrap_err();
        assert!(error.help.unwrap().contains("grant pg_signal_backend"));
        assert!(propose(&sessions, json!({"exclude_users": ["app"]})).unwrap().is_empty());
    }

    #[test]
    fn silence_is_not_taken_for_health() {
        let hidden =
            session(1, &json!({"state": null, "backend_start": null, "idle_seconds": null}));
        let error = propose(std::slice::from_ref(&hidden), json!({})).unwrap_err();
        assert_eq!(error.code, "terminate_idle_connections::not_visible");
        assert_eq!(propose(&[hidden, session(2, &json!({}))], json!({})).unwrap(), [2]);
    }

    #[test]
    fn the_change_can_hit_nobody_else() {
        let set = judge(vec![session(7, &json!({}))], &serde_json::from_value(json!({})).unwrap())
            .unwrap();
        let change = &set.changes[0];
        let Operation::Sql { statement, transactional: false } = &change.operation else {
            panic!("no SQL")
        };
        assert_eq!(statement.binds[0], Bind::Int(7));
        assert_eq!(statement.binds[1], Bind::Text("2025-01-01T00:00:00.123456+00:00".into()));
        assert_eq!(change.guard.as_ref().unwrap().binds, statement.binds);
        assert_eq!((change.recovery, change.risk), (Recovery::Repeatable, Risk::Low));
        assert_eq!(change.cost["sessions_ended"], 1);
        assert!(statement.text.starts_with("select"), "{}", statement.text);
    }

    #[test]
    fn the_report_counts_those_that_are_gone() {
        let sessions = (1..=3).map(|pid| session(pid, &json!({}))).collect();
        let set = judge(sessions, &serde_json::from_value(json!({})).unwrap()).unwrap();
        let applied = |ended: Value| Settlement::Applied {
            receipt: Receipt { result: ended, ..Receipt::default() },
        };
        let settlements = [applied(json!([{"ended": true}])), applied(json!([])), Settlement::Moot];
        let settled: Vec<_> = set
            .changes
            .iter()
            .zip(&settlements)
            .map(|(change, settlement)| Settled { change, settlement: Some(settlement) })
            .collect();
        let output = TerminateIdleConnections.report(&settled);
        assert_eq!(output.ended, 1);
        let endings: Vec<_> = output.sessions.iter().map(|session| session.ending).collect();
        assert_eq!(endings, [Ending::Applied, Ending::Applied, Ending::Moot]);
    }
}
