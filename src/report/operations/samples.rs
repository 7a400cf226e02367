//! What our own sessions cost, from the samples of sessions that collection recorded. PURE.

use serde::Serialize;
use serde_json::Value;

use crate::tools::analysis::number::share;
use crate::tools::tool::HistoryRow;

/// What `collect_sessions` calls sessions of ours: those whose `application_name` begins with `lakeops:`.
const US: &str = "lakeops";
/// What takes samples.
pub(super) const SAMPLER: &str = "collect_sessions";
/// Where it records them.
const TABLE: &str = "connection_samples";

/// What our own sessions cost. PostgreSQL attributes sessions to an `application_name`, and statements only
/// to a user, so this is by sampled sessions: the session that takes the sample is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnQueries {
    /// How many samples there are.
    pub samples: u64,
    /// Sessions of ours at a time, on the average.
    pub sessions: f64,
    /// Sessions of ours that were at work at a time, on the average.
    pub active: f64,
    /// Their share of all sessions that were at work, from 0 to 1; absent when none was.
    pub share_of_active: Option<f64>,
    /// Their share of all connections, from 0 to 1.
    pub share_of_connections: Option<f64>,
}

/// Adds samples up.
#[derive(Default)]
pub(super) struct Samples {
    taken: u64,
    ours: Counted,
    all: Counted,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    sessions: u64,
    active: u64,
}

impl Samples {
    /// The rows of one step: those of one sample, when it took one.
    pub(super) fn add(&mut self, rows: &[HistoryRow]) {
        let rows: Vec<&Value> =
            rows.iter().filter(|row| row.table == TABLE).map(|row| &row.row).collect();
        if rows.is_empty() {
            return;
        }
        let (mut ours, mut all) = (Counted::default(), Counted::default());
        for row in rows {
            let sessions = row["connections"].as_u64().unwrap_or(0);
            let active = if row["state"] == "active" { sessions } else { 0 };
            all.add(sessions, active);
            if row["application_name"] == US {
                ours.add(sessions, active);
            }
        }
        self.taken += 1;
        // The session that takes the sample is at work by what it does.
        let taker = Counted { sessions: ours.sessions.min(1), active: ours.active.min(1) };
        self.ours.add(ours.sessions - taker.sessions, ours.active - taker.active);
        self.all.add(all.sessions - taker.sessions, all.active - taker.active);
    }

    pub(super) fn finish(self) -> Option<OwnQueries> {
        if self.taken == 0 {
            return None;
        }
        let part = |ours: u64, all: u64| (all > 0).then(|| share(ours, all));
        Some(OwnQueries {
            samples: self.taken,
            sessions: share(self.ours.sessions, self.taken),
            active: share(self.ours.active, self.taken),
            share_of_active: part(self.ours.active, self.all.active),
            share_of_connections: part(self.ours.sessions, self.all.sessions),
        })
    }
}

impl Counted {
    fn add(&mut self, sessions: u64, active: u64) {
        self.sessions += sessions;
        self.active += active;
    }
}
