//! Who is connected, what they do, and who holds whom up: looked at by several tools.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::analysis::level::{Level, level_of};
use super::analysis::locks::{Root, Waits, roots};
use super::analysis::missing::NotMeasured;
use super::analysis::number::{rounded, share};
use super::analysis::text::shorten;
use super::context::ReadContext;
use crate::config::Settings;
use crate::kernel::{Failure, Span, SqlFile};
use crate::sql_file;

pub(super) static SESSIONS: SqlFile = sql_file!("shared/sessions");
pub(super) static LIMITS: SqlFile = sql_file!("shared/connection_limits");
pub(super) static PREPARED: SqlFile = sql_file!("shared/prepared_transactions");

/// How many working sessions are listed.
const WORKING_LISTED: usize = 10;

/// What counts as long.
#[derive(Clone, Copy)]
pub(super) struct Long {
    /// Sessions that are idle for longer are listed.
    pub(super) idle: Span,
    /// Waits for a lock that are shorter are not reported.
    pub(super) min_wait: Span,
}

/// Looks at all sessions.
pub(super) async fn look(cx: &ReadContext<'_>, long: Long) -> Result<Connected, Failure> {
    let limits: Limits = cx.pg.row(&LIMITS, &[]).await?;
    let sessions: Vec<Session> = cx.pg.rows(&SESSIONS, &[]).await?;
    let blocked_by_prepared = sessions.iter().any(|session| session.blocked_by.contains(&0));
    let prepared: Vec<PreparedXact> =
        if blocked_by_prepared { cx.pg.rows(&PREPARED, &[]).await? } else { Vec::new() };
    Ok(judge(&Seen { limits, sessions, prepared }, long, cx.settings))
}

#[derive(Clone, Deserialize)]
struct Session {
    pid: i32,
    backend_start: Option<String>,
    backend_type: String,
    own: bool,
    state: Option<String>,
    user_name: Option<String>,
    database_name: Option<String>,
    application: Option<String>,
    client: String,
    age_seconds: Option<f64>,
    state_seconds: Option<f64>,
    xact_seconds: Option<f64>,
    holds_xmin: bool,
    wait_event: Option<String>,
    waiting_for: Option<String>,
    wait_seconds: Option<f64>,
    blocked_by: Vec<i32>,
    query: Option<String>,
}

#[derive(Deserialize)]
struct Limits {
    max_connections: u64,
    superuser_reserved: u64,
    reserved: u64,
}

#[derive(Deserialize)]
struct PreparedXact {
    gid: String,
    user_name: String,
    database_name: String,
    prepared_seconds: f64,
    waiters: Vec<i32>,
}

/// The sessions, and who holds whom up.
#[derive(Serialize, JsonSchema)]
pub(super) struct Connected {
    /// Sessions of clients.
    total: u64,
    /// The server's `max_connections`.
    max_connections: u64,
    /// Those of them that an ordinary user can get.
    usable_connections: u64,
    /// Sessions as a share of what an ordinary user can get.
    utilization: f64,
    /// How bad the utilization is.
    level: Level,
    /// Sessions by state; `unknown` where the state may not be seen.
    states: BTreeMap<String, u64>,
    /// Sessions by user.
    users: BTreeMap<String, u64>,
    /// Sessions by database.
    databases: BTreeMap<String, u64>,
    /// Sessions by application.
    applications: BTreeMap<String, u64>,
    /// Sessions by age.
    ages: Ages,
    /// Sessions that are idle for long, the longest first.
    long_idle: Vec<IdleSession>,
    /// Sessions that are idle inside a transaction, the longest first.
    idle_in_transaction: Vec<IdleSession>,
    /// Sessions at work that wait for no lock, the longest statement first, ten of them.
    working: Vec<Working>,
    /// The roots of the lock tree: who holds others up and waits for nobody. Most blocked first.
    blockers: Vec<Blocker>,
    /// Everyone who waits for a lock, the longest wait first.
    waiting: Vec<Waiter>,
    /// The longest wait for a lock.
    longest_wait_seconds: f64,
    /// What could not be measured.
    pub(super) not_measured: Vec<NotMeasured>,
}

/// Sessions by age.
#[derive(Default, Serialize, JsonSchema)]
pub(super) struct Ages {
    /// Younger than a minute.
    minute: u64,
    /// Younger than an hour.
    hour: u64,
    /// Younger than a day.
    day: u64,
    /// Older.
    older: u64,
}

/// An idle session.
#[derive(Serialize, JsonSchema)]
pub(super) struct IdleSession {
    /// The process.
    pid: i32,
    /// When it began; with the process it names the session.
    backend_start: String,
    /// `idle`, `idle in transaction` or `idle in transaction (aborted)`.
    state: String,
    /// The user.
    user: Option<String>,
    /// The database.
    database: Option<String>,
    /// The application.
    application: Option<String>,
    /// Where the client is.
    client: String,
    /// How long it has been idle.
    idle_seconds: f64,
    /// How long its transaction is open.
    xact_seconds: Option<f64>,
    /// Whether it keeps VACUUM from removing dead rows.
    holds_xmin: bool,
    /// The last statement, 200 characters of it.
    query: String,
}

/// A session at work.
#[derive(Serialize, JsonSchema)]
pub(super) struct Working {
    /// The process.
    pid: i32,
    /// When it began; with the process it names the session.
    backend_start: String,
    /// The user.
    user: Option<String>,
    /// The database.
    database: Option<String>,
    /// The application.
    application: Option<String>,
    /// How long its statement has been running.
    query_seconds: f64,
    /// How long its transaction is open.
    xact_seconds: Option<f64>,
    /// What it waits for, other than a lock.
    wait_event: Option<String>,
    /// The statement, 200 characters of it.
    query: String,
}

/// Who holds others up.
#[derive(Serialize, JsonSchema)]
pub(super) struct Blocker {
    /// The process; 0 for a prepared transaction.
    pid: i32,
    /// When it began; with the process it names the session.
    backend_start: Option<String>,
    /// The identifier of a prepared transaction: `rollback prepared` or `commit prepared` ends it.
    prepared: Option<String>,
    /// What kind of process it is, such as `client backend` or `autovacuum worker`.
    backend_type: String,
    /// Its state.
    state: Option<String>,
    /// The user.
    user: Option<String>,
    /// The database.
    database: Option<String>,
    /// The application.
    application: Option<String>,
    /// How long it has been idle; absent when it works.
    idle_seconds: Option<f64>,
    /// How long its transaction is open.
    xact_seconds: Option<f64>,
    /// Whether it is idle inside a transaction: nothing happens there any more.
    idle_in_transaction: bool,
    /// Whether it keeps VACUUM from removing dead rows.
    holds_xmin: bool,
    /// How many processes wait for it, directly or through others.
    blocked: u64,
    /// The length of the longest chain of waits that ends at it.
    depth: u32,
    /// The longest wait in its tree.
    longest_wait_seconds: f64,
    /// The last statement, 200 characters of it.
    query: String,
}

/// Who waits for a lock.
#[derive(Serialize, JsonSchema)]
pub(super) struct Waiter {
    /// The process.
    pid: i32,
    /// Whom it waits for directly; 0 is a prepared transaction.
    blocked_by: Vec<i32>,
    /// How far it is from the root that it waits for.
    level: u32,
    /// How long it has been waiting.
    wait_seconds: f64,
    /// The lock that it wants.
    waiting_for: Option<String>,
    /// The user.
    user: Option<String>,
    /// The application.
    application: Option<String>,
    /// Its statement, 200 characters of it.
    query: String,
}

/// Everything that was read.
struct Seen {
    limits: Limits,
    sessions: Vec<Session>,
    prepared: Vec<PreparedXact>,
}

fn judge(seen: &Seen, long: Long, settings: &Settings) -> Connected {
    let clients: Vec<&Session> =
        seen.sessions.iter().filter(|session| session.backend_type == "client backend").collect();
    let total = clients.len() as u64;
    let Limits { max_connections, superuser_reserved, reserved } = seen.limits;
    let usable = max_connections.saturating_sub(superuser_reserved + reserved);
    let utilization = rounded(share(total, usable));
    let tree = Tree::new(seen, long.min_wait.0.as_secs_f64());
    let waiting = tree.waiters(seen);
    Connected {
        total,
        max_connections,
        usable_connections: usable,
        utilization,
        level: level_of(settings, "connection_utilization", utilization),
        states: count(&clients, |session| session.state.as_ref(), "unknown"),
        users: count(&clients, |session| session.user_name.as_ref(), "unknown"),
        databases: count(&clients, |session| session.database_name.as_ref(), "none"),
        applications: count(&clients, |session| session.application.as_ref(), "unnamed"),
        ages: ages(&clients),
        long_idle: idle(&clients, |session, seconds| {
            session.state.as_deref() == Some("idle") && seconds > long.idle.0.as_secs_f64()
        }),
        idle_in_transaction: idle(&clients, |session, _| session.is_idle_in_transaction()),
        working: working(&clients),
        blockers: tree.blockers(seen),
        longest_wait_seconds: waiting.first().map_or(0.0, |waiter| waiter.wait_seconds),
        waiting,
        not_measured: hidden(&clients),
    }
}

impl Session {
    fn is_idle_in_transaction(&self) -> bool {
        self.state.as_deref().is_some_and(|state| state.starts_with("idle in transaction"))
    }

    fn idle_seconds(&self) -> Option<f64> {
        let is_idle = self.state.as_deref().is_some_and(|state| state.starts_with("idle"));
        self.state_seconds.filter(|_| is_idle).map(rounded)
    }

    fn shown_query(&self) -> String {
        shorten(self.query.as_deref().unwrap_or_default())
    }
}

/// An empty name counts like an absent one.
fn count(
    sessions: &[&Session],
    key: impl Fn(&Session) -> Option<&String>,
    absent: &str,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for session in sessions {
        let name = key(session).map(String::as_str).filter(|name| !name.is_empty());
        *counts.entry(name.unwrap_or(absent).to_owned()).or_default() += 1;
    }
    counts
}

fn ages(sessions: &[&Session]) -> Ages {
    let mut ages = Ages::default();
    for seconds in sessions.iter().filter_map(|session| session.age_seconds) {
        match seconds {
            ..60.0 => ages.minute += 1,
            ..3_600.0 => ages.hour += 1,
            ..86_400.0 => ages.day += 1,
            _ => ages.older += 1,
        }
    }
    ages
}

fn idle(sessions: &[&Session], wanted: impl Fn(&Session, f64) -> bool) -> Vec<IdleSession> {
    let mut idle: Vec<_> = sessions
        .iter()
        .filter(|session| !session.own)
        .filter_map(|session| {
            let seconds = session.idle_seconds()?;
            wanted(session, seconds).then(|| IdleSession {
                pid: session.pid,
                backend_start: session.backend_start.clone().unwrap_or_default(),
                state: session.state.clone().unwrap_or_default(),
                user: session.user_name.clone(),
                database: session.database_name.clone(),
                application: session.application.clone(),
                client: session.client.clone(),
                idle_seconds: seconds,
                xact_seconds: session.xact_seconds.map(rounded),
                holds_xmin: session.holds_xmin,
                query: session.shown_query(),
            })
        })
        .collect();
    idle.sort_by(|a, b| b.idle_seconds.total_cmp(&a.idle_seconds));
    idle
}

fn working(sessions: &[&Session]) -> Vec<Working> {
    let at_work = |session: &&&Session| {
        !session.own && session.state.as_deref() == Some("active") && session.blocked_by.is_empty()
    };
    let mut working: Vec<_> = sessions
        .iter()
        .filter(at_work)
        .map(|session| Working {
            pid: session.pid,
            backend_start: session.backend_start.clone().unwrap_or_default(),
            user: session.user_name.clone(),
            database: session.database_name.clone(),
            application: session.application.clone(),
            query_seconds: rounded(session.state_seconds.unwrap_or(0.0)),
            xact_seconds: session.xact_seconds.map(rounded),
            wait_event: session.wait_event.clone(),
            query: session.shown_query(),
        })
        .collect();
    working.sort_by(|a, b| b.query_seconds.total_cmp(&a.query_seconds));
    working.truncate(WORKING_LISTED);
    working
}

/// The server hides the state of other users' sessions from those who may not see it.
fn hidden(sessions: &[&Session]) -> Vec<NotMeasured> {
    let hidden = sessions.iter().filter(|session| session.state.is_none()).count();
    if hidden == 0 {
        return Vec::new();
    }
    let why = format!("state and statement of {hidden} sessions of other users are hidden from us");
    vec![NotMeasured::new("sessions", why).needs("grant pg_read_all_stats to current_user")]
}

/// The lock tree. A prepared transaction has no process: it is the node `-1 - index`.
struct Tree {
    waits: Waits,
    roots: Vec<Root>,
}

impl Tree {
    fn new(seen: &Seen, min_wait: f64) -> Self {
        let known: BTreeSet<i32> = seen.sessions.iter().map(|session| session.pid).collect();
        let mut waits = Waits::new();
        for session in &seen.sessions {
            // The moment at which a wait began is not known for its first few milliseconds.
            if session.blocked_by.is_empty() || session.wait_seconds.unwrap_or(0.0) < min_wait {
                continue;
            }
            let mut blockers: BTreeSet<i32> =
                session.blocked_by.iter().copied().filter(|pid| known.contains(pid)).collect();
            let nodes = (1..).map(|index: i32| -index);
            let prepared = seen.prepared.iter().zip(nodes);
            blockers.extend(
                prepared.filter(|(xact, _)| xact.waiters.contains(&session.pid)).map(|(_, n)| n),
            );
            if !blockers.is_empty() {
                waits.insert(session.pid, blockers);
            }
        }
        let roots = roots(&waits);
        Self { waits, roots }
    }

    fn blockers(&self, seen: &Seen) -> Vec<Blocker> {
        self.roots.iter().filter_map(|root| blocker(root, seen)).collect()
    }

    fn waiters(&self, seen: &Seen) -> Vec<Waiter> {
        let level = |pid: i32| {
            self.roots.iter().filter_map(|root| root.levels.get(&pid)).copied().max().unwrap_or(0)
        };
        let mut waiters: Vec<_> = seen
            .sessions
            .iter()
            .filter(|session| self.waits.contains_key(&session.pid))
            .map(|session| Waiter {
                pid: session.pid,
                blocked_by: session.blocked_by.clone(),
                level: level(session.pid),
                wait_seconds: rounded(session.wait_seconds.unwrap_or(0.0)),
                waiting_for: session.waiting_for.clone().or_else(|| session.wait_event.clone()),
                user: session.user_name.clone(),
                application: session.application.clone(),
                query: session.shown_query(),
            })
            .collect();
        waiters.sort_by(|a, b| b.wait_seconds.total_cmp(&a.wait_seconds));
        waiters
    }
}

fn blocker(root: &Root, seen: &Seen) -> Option<Blocker> {
    let waits = seen.sessions.iter().filter(|session| root.levels.contains_key(&session.pid));
    let longest = waits.filter_map(|session| session.wait_seconds).fold(0.0, f64::max);
    let blocked = root.blocked() as u64;
    let (depth, longest_wait_seconds) = (root.depth(), rounded(longest));
    if let Ok(index) = usize::try_from(-1 - root.pid) {
        let xact = seen.prepared.get(index)?;
        return Some(Blocker {
            pid: 0,
            backend_start: None,
            prepared: Some(xact.gid.clone()),
            backend_type: "prepared transaction".to_owned(),
            state: None,
            user: Some(xact.user_name.clone()),
            database: Some(xact.database_name.clone()),
            application: None,
            idle_seconds: Some(rounded(xact.prepared_seconds)),
            xact_seconds: Some(rounded(xact.prepared_seconds)),
            idle_in_transaction: false,
            holds_xmin: true,
            blocked,
            depth,
            longest_wait_seconds,
            query: String::new(),
        });
    }
    let session = seen.sessions.iter().find(|session| session.pid == root.pid)?;
    Some(Blocker {
        pid: session.pid,
        backend_start: session.backend_start.clone(),
        prepared: None,
        backend_type: session.backend_type.clone(),
        state: session.state.clone(),
        user: session.user_name.clone(),
        database: session.database_name.clone(),
        application: session.application.clone(),
        idle_seconds: session.idle_seconds(),
        xact_seconds: session.xact_seconds.map(rounded),
        idle_in_transaction: session.is_idle_in_transaction(),
        holds_xmin: session.holds_xmin,
        blocked,
        depth,
        longest_wait_seconds,
        query: session.shown_query(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn session(pid: i32, extra: &Value) -> Session {
        let mut row = json!({
            "pid": pid, "backend_start": "2025-01-01T00:00:00.123456+00:00",
            "backend_type": "client backend", "own": false, "state": "active",
            "user_name": "app", "database_name": "shop", "application": "web", "client": "local",
            "age_seconds": 120.0, "state_seconds": 1.0, "xact_seconds": 2.0, "holds_xmin": false,
            "wait_event": null, "waiting_for": null, "wait_seconds": null, "blocked_by": [],
            "query": "select 1",
        });
        for (key, value) in extra.as_object().unwrap() {
            row[key] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    fn judged(sessions: Vec<Session>, prepared: Vec<PreparedXact>) -> Connected {
        let limits = Limits { max_connections: 10, superuser_reserved: 3, reserved: 2 };
        let long = Long { idle: Span::from_secs(1800), min_wait: Span::default() };
        judge(&Seen { limits, sessions, prepared }, long, &Settings::default())
    }

    #[test]
    fn only_clients_count_against_what_they_can_get() {
        let output = judged(
            vec![
                session(1, &json!({})),
                session(2, &json!({"state": "idle", "application": ""})),
                session(3, &json!({"backend_type": "walwriter", "state": null})),
                session(4, &json!({"age_seconds": 90_000.0})),
                session(5, &json!({"age_seconds": 1.0})),
            ],
            Vec::new(),
        );
        assert_eq!((output.total, output.usable_connections), (4, 5));
        assert!((output.utilization - 0.8).abs() < 1e-9);
        assert_eq!(output.level, Level::Warning);
        assert_eq!(output.states, BTreeMap::from([("active".into(), 3), ("idle".into(), 1)]));
        assert_eq!(output.applications.get("unnamed"), Some(&1));
        assert_eq!((output.ages.minute, output.ages.hour, output.ages.older), (1, 2, 1));
        assert_eq!(output.not_measured, []);
    }

    #[test]
    fn the_root_of_the_tree_is_the_idle_one() {
        let idle = json!({"state": "idle in transaction", "state_seconds": 300.0,
            "xact_seconds": 301.0, "holds_xmin": true});
        let output = judged(
            vec![
                session(1, &idle),
                session(2, &json!({"blocked_by": [1], "wait_seconds": 3.0})),
                session(3, &json!({"blocked_by": [1, 2], "wait_seconds": 2.0})),
                session(4, &json!({"blocked_by": [3], "wait_seconds": 1.0})),
            ],
            Vec::new(),
        );
        let [root] = output.blockers.as_slice() else { panic!("not one root") };
        assert_eq!((root.pid, root.blocked, root.depth), (1, 3, 3));
        assert!(root.idle_in_transaction && root.holds_xmin);
        assert_eq!((root.idle_seconds, root.xact_seconds), (Some(300.0), Some(301.0)));
        assert!((root.longest_wait_seconds - 3.0).abs() < 1e-9);
        let waiting: Vec<_> = output.waiting.iter().map(|w| (w.pid, w.level)).collect();
        assert_eq!(waiting, [(2, 1), (3, 2), (4, 3)]);
        assert_eq!(output.idle_in_transaction.len(), 1);
    }

    #[test]
    fn a_prepared_transaction_can_be_the_root() {
        let prepared = |gid: &str, waiters: &[i32]| PreparedXact {
            gid: gid.to_owned(),
            user_name: "app".to_owned(),
            database_name: "shop".to_owned(),
            prepared_seconds: 60.0,
            waiters: waiters.to_vec(),
        };
        let output = judged(
            vec![session(7, &json!({"blocked_by": [0], "wait_seconds": 5.0}))],
            vec![prepared("harmless", &[]), prepared("px", &[7])],
        );
        let [root] = output.blockers.as_slice() else { panic!("not one root") };
        assert_eq!((root.pid, root.prepared.as_deref(), root.blocked), (0, Some("px"), 1));
    }

    #[test]
    fn long_idle_leaves_out_our_own_session() {
        let long = json!({"state": "idle", "state_seconds": 1801.0, "query": "q".repeat(300)});
        let mut own = session(2, &long);
        own.own = true;
        let short = session(3, &json!({"state": "idle", "state_seconds": 1800.0}));
        let output = judged(vec![session(1, &long), own, short], Vec::new());
        let [idle] = output.long_idle.as_slice() else { panic!("not one") };
        assert_eq!((idle.pid, idle.query.chars().count()), (1, 201));
    }

    #[test]
    fn what_is_hidden_is_said() {
        let hidden = json!({"state": null, "query": "<insufficient privilege>"});
        let output = judged(vec![session(1, &hidden)], Vec::new());
        assert_eq!(output.states.get("unknown"), Some(&1));
        let needs = output.not_measured[0].needs.as_deref();
        assert!(needs.unwrap().contains("pg_read_all_stats"));
    }
}
