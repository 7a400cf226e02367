//! What the demo measured, and whether its promises held. PURE.

use std::collections::BTreeSet;

use serde::Serialize;

use super::load::Throughput;
use super::patient::TableFigures;
use crate::journal::event::Outcome;
use crate::journal::rehearsal::{HeldLock, Rehearsed, Trial};
use crate::journal::store::Verification;
use crate::kernel::Timestamp;
use crate::report::rehearsal::RehearsalView;
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
    /// The third act.
    pub rewrite: Rewrite,
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

/// Dead rows.
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
    /// The tables before and after.
    pub tables: Vec<Table>,
    /// The load while all this went on.
    pub payments: Throughput,
}

/// Bloat, and the decision about it.
#[derive(Debug, Serialize)]
pub struct Rewrite {
    /// The run.
    pub run_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was said to who approved before anybody had rehearsed; null: it was not refused.
    pub refused: Option<String>,
    /// The rehearsal.
    pub rehearsal: Rehearsal,
    /// Branches that were there after the rehearsal, and not before.
    pub branches_left: Vec<String>,
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

/// The same statements on a branch.
#[derive(Debug, Serialize)]
pub struct Rehearsal {
    /// The run.
    pub run_id: String,
    /// The branch.
    pub branch: Option<String>,
    /// Whether every statement did on the branch what it should.
    pub passed: bool,
    /// Bytes of the tables on the branch, before and after.
    pub bytes: Option<(i64, i64)>,
    /// How long the statements took there, in milliseconds.
    pub duration_ms: u64,
    /// The locks that they held there.
    pub locks: Vec<HeldLock>,
    /// Bytes of the same tables on the branch that was copied, before and after.
    pub bytes_here: (i64, i64),
}

impl Rehearsal {
    /// What a rehearsal showed, beside what the real tables did meanwhile.
    pub(super) fn of(run_id: String, view: &RehearsalView, here: &[Table]) -> Self {
        let steps = || view.steps.iter().map(|step| &step.evidence.rehearsed);
        let trials = || steps().flat_map(|rehearsed| &rehearsed.changes);
        let bytes = |trial: &Trial| {
            let receipt = trial.receipt.as_ref()?;
            let of = |measure: &serde_json::Value| measure["total_bytes"].as_i64();
            Some((of(&receipt.before)?, of(&receipt.after)?))
        };
        let add = |(b, a): (i64, i64), (before, after): (i64, i64)| (b + before, a + after);
        let measured: Option<Vec<(i64, i64)>> = trials().map(bytes).collect();
        let tried = |table: &&Table| trials().any(|trial| trial.object == table.name);
        let here = here.iter().filter(tried).map(|table| (table.bytes_before, table.bytes_after));
        let receipts = trials().filter_map(|trial| trial.receipt.as_ref());
        Self {
            run_id,
            branch: steps().find_map(|rehearsed| rehearsed.branch.clone()),
            passed: !view.steps.is_empty() && steps().all(Rehearsed::passed),
            bytes: measured.map(|all| all.into_iter().fold((0, 0), add)),
            duration_ms: receipts.filter_map(|receipt| receipt.duration_ms).sum(),
            locks: trials().flat_map(|trial| trial.locks.clone()).collect(),
            bytes_here: here.fold((0, 0), add),
        }
    }
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
    rewrite: &Rewrite,
    audit: &Verification,
) -> Vec<Promise> {
    let mut promises = of_connections(connections);
    promises.extend(of_crash(bloat));
    promises.extend(of_rehearsal(rewrite));
    promises.extend(of_decision(rewrite));
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
    let vacuumed = seen.tables.iter().filter(|table| seen.vacuumed.contains(&table.name));
    let (before, after) =
        vacuumed.fold((0, 0), |(b, a), table| (b + table.dead_before, a + table.dead_after));
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
        Promise {
            claim: "dead rows are gone",
            held: seen.outcome == Outcome::Succeeded && before > 0 && after * 5 < before,
            measured: format!("{before} -> {after} in {}", count(seen.vacuumed.len(), "table")),
        },
    ]
}

fn of_rehearsal(seen: &Rewrite) -> Vec<Promise> {
    let tried = &seen.rehearsal;
    let branch = tried.branch.as_deref().unwrap_or("no branch");
    let (was, is) = tried.bytes_here;
    vec![
        Promise {
            claim: "nobody can approve what was not rehearsed",
            held: seen.refused.is_some(),
            measured: seen.refused.clone().unwrap_or_else(|| "it was not refused".to_owned()),
        },
        Promise {
            claim: "the rehearsal rewrites a branch, and nothing else",
            held: tried.passed
                && tried.branch.is_some()
                && tried.bytes.is_some_and(|(before, after)| after > 0 && after * 2 < before)
                && was == is
                && was > 0,
            measured: match tried.bytes {
                Some((before, after)) => format!(
                    "{} -> {} on {branch} in {} ms; still {} here",
                    size(before),
                    size(after),
                    tried.duration_ms,
                    size(is)
                ),
                None => format!("not measured on {branch}"),
            },
        },
        Promise {
            claim: "a rehearsal leaves no branch behind",
            held: seen.branches_left.is_empty(),
            measured: if seen.branches_left.is_empty() {
                "the project has no other branch than before".to_owned()
            } else {
                format!("left: {}", seen.branches_left.join(", "))
            },
        },
    ]
}

fn of_decision(seen: &Rewrite) -> Vec<Promise> {
    let rewritten = seen.tables.iter().filter(|table| seen.rewritten.contains(&table.name));
    let (large, small) =
        rewritten.fold((0, 0), |(b, a), table| (b + table.bytes_before, a + table.bytes_after));
    let who = seen.decided_by.as_deref().unwrap_or("nobody");
    let decided = Promise {
        claim: "nothing of high risk happens before somebody decides",
        held: seen.decided_by.is_some() && seen.decided_first && !seen.statements.is_empty(),
        measured: format!(
            "{} shown, {} by {who}",
            count(seen.statements.len(), "statement"),
            if seen.approved { "approved" } else { "rejected" }
        ),
    };
    let done = if seen.approved {
        Promise {
            claim: "the bloated table is smaller, by measured size",
            held: seen.outcome == Outcome::Succeeded && small > 0 && small * 2 < large,
            measured: format!("{} -> {}", size(large), size(small)),
        }
    } else {
        Promise {
            claim: "what was rejected was not carried out",
            held: seen.rewritten.is_empty(),
            measured: format!("{} rewritten", count(seen.rewritten.len(), "table")),
        }
    };
    vec![decided, done]
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

    fn load() -> Throughput {
        Throughput {
            seconds: 1.0,
            payments: 1,
            per_second: 1.0,
            median_ms: Some(1.0),
            slowest_ms: Some(1.0),
        }
    }

    fn bloat() -> Bloat {
        Bloat {
            run_id: "r".to_owned(),
            outcome: Outcome::Succeeded,
            killed_by: Some(9),
            killed_at: None,
            settled_before_kill: names(&["a"]),
            begun_before_kill: names(&["b"]),
            vacuumed: names(&["a", "b", "c"]),
            tables: vec![table("a", 1), table("b", 2), table("c", 1)],
            payments: load(),
        }
    }

    fn rewrite() -> Rewrite {
        let trail = Table { bytes_before: 1000, bytes_after: 100, ..table("trail", 0) };
        Rewrite {
            run_id: "r".to_owned(),
            outcome: Outcome::Succeeded,
            refused: Some("never rehearsed".to_owned()),
            rehearsal: Rehearsal {
                run_id: "s".to_owned(),
                branch: Some("tmp-1".to_owned()),
                passed: true,
                bytes: Some((1000, 100)),
                duration_ms: 9,
                locks: Vec::new(),
                bytes_here: (1000, 1000),
            },
            branches_left: Vec::new(),
            rewritten: names(&["trail"]),
            decided_by: Some("demo".to_owned()),
            approved: true,
            decided_first: true,
            statements: vec!["vacuum (full)".to_owned()],
            tables: vec![trail],
            payments: load(),
        }
    }

    fn held(promises: impl IntoIterator<Item = Promise>) -> Vec<bool> {
        promises.into_iter().map(|promise| promise.held).collect()
    }

    fn decided(rewrite: &Rewrite) -> Vec<bool> {
        held(of_rehearsal(rewrite).into_iter().chain(of_decision(rewrite)))
    }

    #[test]
    fn a_good_demo_holds_every_promise() {
        assert_eq!(held(of_crash(&bloat())), [true; 3]);
        assert_eq!(decided(&rewrite()), [true; 5]);
    }

    #[test]
    fn each_promise_can_be_broken() {
        let crash = |bloat: &Bloat| held(of_crash(bloat));
        assert!(!crash(&Bloat { killed_by: None, ..bloat() })[0]);
        let mut again = bloat();
        again.tables[0].vacuums = 2;
        assert!(!crash(&again)[1]);
        let mut missed = bloat();
        missed.tables[2].vacuums = 0;
        assert!(!crash(&missed)[1]);
        let mut dead = bloat();
        dead.tables[2].dead_after = 1000;
        assert!(!crash(&dead)[2]);

        assert!(!decided(&Rewrite { refused: None, ..rewrite() })[0]);
        let rehearsed = |change: fn(&mut Rehearsal)| {
            let mut rewrite = rewrite();
            change(&mut rewrite.rehearsal);
            decided(&rewrite)[1]
        };
        assert!(!rehearsed(|it| it.passed = false));
        assert!(!rehearsed(|it| it.branch = None));
        assert!(!rehearsed(|it| it.bytes = None));
        assert!(!rehearsed(|it| it.bytes_here = (1000, 100)));
        let left = vec!["tmp-1".to_owned()];
        assert!(!decided(&Rewrite { branches_left: left, ..rewrite() })[2]);
        assert!(!decided(&Rewrite { decided_first: false, ..rewrite() })[3]);
        let mut large = rewrite();
        large.tables[0].bytes_after = 900;
        assert!(!decided(&large)[4]);
        assert!(!decided(&Rewrite { approved: false, ..rewrite() })[4]);
    }

    #[test]
    fn a_rehearsal_is_read_from_its_evidence() {
        let view = RehearsalView {
            ttl: crate::kernel::Span::from_secs(3600),
            branches: Vec::new(),
            steps: Vec::new(),
        };
        let nothing = Rehearsal::of("s".to_owned(), &view, &[table("trail", 0)]);
        assert!(!nothing.passed, "a rehearsal of nothing shows nothing");
        assert_eq!((nothing.branch, nothing.bytes_here), (None, (0, 0)));
    }
}
