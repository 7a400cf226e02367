//! What the demo measured, and whether its promises held. PURE.

use std::collections::BTreeSet;

use serde::Serialize;

use super::load::Throughput;
use super::patient::TableFigures;
use crate::journal::event::Outcome;
use crate::journal::store::Verification;
use crate::kernel::Timestamp;
use crate::report::style::count;

/// The signal that cannot be caught.
const SIGKILL: i32 = 9;
/// How many tables are vacuumed at once: so many may be done twice after one kill.
const AT_ONCE: i64 = 2;

/// The report: printed at the end, and the JSON of `--output json`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether every promise held.
    pub ok: bool,
    /// The server.
    pub server: String,
    /// The first act.
    pub connections: Connections,
    /// The second act.
    pub bloat: Bloat,
    /// What the journal says, in order.
    pub timeline: Vec<Moment>,
    /// Whether the journal is as it was written.
    pub audit: Verification,
    /// What was promised, and what was measured.
    pub promises: Vec<Promise>,
    /// How long the demo took.
    pub seconds: f64,
    /// Command lines to look further.
    pub look_further: Vec<String>,
}

/// The session that held everybody up.
#[derive(Debug, Serialize)]
pub struct Connections {
    /// The run.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The load before anything was wrong.
    pub healthy: Throughput,
    /// The load while the session held its lock.
    pub blocked: Throughput,
    /// The load after the session was ended.
    pub healed: Throughput,
    /// Sessions that waited when the run began.
    pub blocked_before: u64,
    /// Sessions that still waited after it.
    pub blocked_after: u64,
    /// Sessions that were ended.
    pub ended: u64,
}

/// Dead rows and bloat.
#[derive(Debug, Serialize)]
pub struct Bloat {
    /// The run.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The signal that ended the first worker.
    pub killed_by: Option<i32>,
    /// The boundary that it had reached.
    pub killed_at: Option<String>,
    /// Tables whose VACUUM was settled in the journal when the worker was killed.
    pub settled_before_kill: BTreeSet<String>,
    /// Tables whose VACUUM was begun and not settled then.
    pub begun_before_kill: BTreeSet<String>,
    /// Tables that the run vacuumed.
    pub vacuumed: BTreeSet<String>,
    /// Tables that it rewrote.
    pub rewritten: BTreeSet<String>,
    /// Who decided about the rewrite.
    pub decided_by: Option<String>,
    /// Whether it was approved.
    pub approved: bool,
    /// Whether the rewrite began after the decision, and not before it.
    pub decided_first: bool,
    /// Statements that were shown for approval.
    pub statements: Vec<String>,
    /// The tables before and after.
    pub tables: Vec<Table>,
    /// The load while all this went on.
    pub payments: Throughput,
}

/// A table before and after.
#[derive(Debug, Serialize)]
pub struct Table {
    /// `schema.name`.
    pub name: String,
    /// Bytes before.
    pub bytes_before: i64,
    /// Bytes after.
    pub bytes_after: i64,
    /// Dead rows before.
    pub dead_before: i64,
    /// Dead rows after.
    pub dead_after: i64,
    /// How often the server vacuumed it by a command in between.
    pub vacuums: i64,
}

/// An event of the journal.
#[derive(Debug, Serialize)]
pub struct Moment {
    /// When.
    pub at: Timestamp,
    /// In which workflow.
    pub workflow: String,
    /// The step.
    pub step: Option<String>,
    /// What happened.
    pub what: String,
}

/// Something that the demo promises, held against what was measured.
#[derive(Debug, PartialEq, Serialize)]
pub struct Promise {
    /// What is promised.
    pub claim: &'static str,
    /// Whether it held.
    pub held: bool,
    /// What was measured.
    pub measured: String,
}

/// Tables before and after, by name.
pub(super) fn compare(before: &[TableFigures], after: &[TableFigures]) -> Vec<Table> {
    let pair = |was: &TableFigures| {
        let now = after.iter().find(|now| now.name == was.name)?;
        Some(Table {
            name: was.name.clone(),
            bytes_before: was.bytes,
            bytes_after: now.bytes,
            dead_before: was.dead_rows,
            dead_after: now.dead_rows,
            vacuums: now.vacuums - was.vacuums,
        })
    };
    before.iter().filter_map(pair).collect()
}

/// Every promise, with what was measured.
pub(super) fn promises(
    connections: &Connections,
    bloat: &Bloat,
    audit: &Verification,
) -> Vec<Promise> {
    let mut promises = of_connections(connections);
    promises.extend(of_crash(bloat));
    promises.extend(of_bloat(bloat));
    promises.push(Promise {
        claim: "the journal is as it was written",
        held: audit.broken.is_none() && audit.events > 0,
        measured: format!("{} linked events verified", audit.events),
    });
    promises
}

fn of_connections(seen: &Connections) -> Vec<Promise> {
    let (healthy, healed) = (seen.healthy.per_second, seen.healed.per_second);
    vec![
        Promise {
            claim: "the session that held everybody up is ended, and nobody else",
            held: seen.outcome == Outcome::Succeeded && seen.ended == 1 && seen.blocked_after == 0,
            measured: format!(
                "{} ended; waiting sessions {} -> {}",
                seen.ended, seen.blocked_before, seen.blocked_after
            ),
        },
        Promise {
            claim: "payments flow again",
            held: seen.blocked.per_second * 2.0 < healthy && healed * 2.0 > healthy,
            measured: format!(
                "{healthy:.0}/s healthy, {:.0}/s blocked, {healed:.0}/s healed",
                seen.blocked.per_second
            ),
        },
    ]
}

fn of_crash(seen: &Bloat) -> Vec<Promise> {
    let done_once =
        |name: &&String| seen.tables.iter().any(|table| table.name == **name && table.vacuums == 1);
    let once = seen.settled_before_kill.iter().filter(done_once).count();
    let repeats: i64 =
        seen.tables.iter().map(|table| table.vacuums - 1).filter(|extra| *extra > 0).sum();
    let missed = seen
        .vacuumed
        .iter()
        .filter(|name| !seen.tables.iter().any(|table| table.name == **name && table.vacuums > 0));
    let missed = missed.count();
    vec![
        Promise {
            claim: "the worker is killed in the middle",
            held: seen.killed_by == Some(SIGKILL)
                && !seen.settled_before_kill.is_empty()
                && seen.settled_before_kill.len() < seen.vacuumed.len(),
            measured: match (seen.killed_by, &seen.killed_at) {
                (Some(signal), Some(boundary)) => format!("signal {signal} at {boundary}"),
                (Some(signal), None) => format!("signal {signal}"),
                (None, _) => "it was not killed".to_owned(),
            },
        },
        Promise {
            claim: "what was settled is not done again",
            held: once == seen.settled_before_kill.len() && repeats <= AT_ONCE && missed == 0,
            measured: format!(
                "{once} of {} settled tables vacuumed once; {repeats} repeated, {missed} missed, \
                 by the server's own count",
                seen.settled_before_kill.len()
            ),
        },
    ]
}

fn of_bloat(seen: &Bloat) -> Vec<Promise> {
    let vacuumed = seen.tables.iter().filter(|table| seen.vacuumed.contains(&table.name));
    let (before, after) =
        vacuumed.fold((0, 0), |(b, a), table| (b + table.dead_before, a + table.dead_after));
    let rewritten = seen.tables.iter().filter(|table| seen.rewritten.contains(&table.name));
    let (large, small) =
        rewritten.fold((0, 0), |(b, a), table| (b + table.bytes_before, a + table.bytes_after));
    let who = seen.decided_by.as_deref().unwrap_or("nobody");
    let mut promises = vec![
        Promise {
            claim: "dead rows are gone",
            held: before > 0 && after * 5 < before,
            measured: format!("{before} -> {after} in {}", count(seen.vacuumed.len(), "table")),
        },
        Promise {
            claim: "nothing of high risk happens before somebody decides",
            held: seen.decided_by.is_some() && seen.decided_first && !seen.statements.is_empty(),
            measured: format!(
                "{} shown, {} by {who}",
                count(seen.statements.len(), "statement"),
                if seen.approved { "approved" } else { "rejected" }
            ),
        },
    ];
    if seen.approved {
        promises.push(Promise {
            claim: "the bloated table is smaller, by measured size",
            held: seen.outcome == Outcome::Succeeded && small > 0 && small * 2 < large,
            measured: format!("{} -> {}", size(large), size(small)),
        });
    } else {
        promises.push(Promise {
            claim: "what was rejected was not carried out",
            held: seen.rewritten.is_empty(),
            measured: format!("{} rewritten", count(seen.rewritten.len(), "table")),
        });
    }
    promises
}

/// Bytes for people.
pub(super) fn size(bytes: i64) -> String {
    crate::kernel::ByteSize(u64::try_from(bytes).unwrap_or(0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, vacuums: i64) -> Table {
        Table {
            name: name.to_owned(),
            bytes_before: 100,
            bytes_after: 100,
            dead_before: 1000,
            dead_after: 0,
            vacuums,
        }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn bloat() -> Bloat {
        let trail = Table { bytes_before: 1000, bytes_after: 100, ..table("trail", 0) };
        Bloat {
            run_id: "r".to_owned(),
            outcome: Outcome::Succeeded,
            killed_by: Some(9),
            killed_at: None,
            settled_before_kill: names(&["a"]),
            begun_before_kill: names(&["b"]),
            vacuumed: names(&["a", "b", "c"]),
            rewritten: names(&["trail"]),
            decided_by: Some("demo".to_owned()),
            approved: true,
            decided_first: true,
            statements: vec!["vacuum (full)".to_owned()],
            tables: vec![table("a", 1), table("b", 2), table("c", 1), trail],
            payments: Throughput {
                seconds: 1.0,
                payments: 1,
                per_second: 1.0,
                median_ms: Some(1.0),
                slowest_ms: Some(1.0),
            },
        }
    }

    fn held(bloat: &Bloat) -> Vec<bool> {
        of_crash(bloat).into_iter().chain(of_bloat(bloat)).map(|promise| promise.held).collect()
    }

    #[test]
    fn a_good_demo_holds_every_promise() {
        assert_eq!(held(&bloat()), [true; 5]);
    }

    #[test]
    fn each_promise_can_be_broken() {
        assert!(!held(&Bloat { killed_by: None, ..bloat() })[0]);
        let mut again = bloat();
        again.tables[0].vacuums = 2;
        assert!(!held(&again)[1]);
        let mut missed = bloat();
        missed.tables[2].vacuums = 0;
        assert!(!held(&missed)[1]);
        let mut dead = bloat();
        dead.tables[2].dead_after = 1000;
        assert!(!held(&dead)[2]);
        assert!(!held(&Bloat { decided_first: false, ..bloat() })[3]);
        let mut large = bloat();
        large.tables[3].bytes_after = 900;
        assert!(!held(&large)[4]);
        assert!(!held(&Bloat { approved: false, ..bloat() })[4]);
    }
}
