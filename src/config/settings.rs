//! The settings that steps and the engine work with, already resolved for one target.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policies::{ColdData, Freshness};
use crate::kernel::{Risk, Span};

/// Settings as they hold for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who is asked, and when.
    pub approvals: Approvals,
    /// What one session or step may take.
    pub limits: Limits,
    /// Numbers that rules compare with, by metric.
    pub thresholds: BTreeMap<String, Threshold>,
    /// Caps per run and per day, by cost name (`sessions_ended`, `bytes_rewritten`, …).
    pub caps: BTreeMap<String, Cap>,
    /// Maintenance windows: when changes above low risk may run. Empty: always.
    pub windows: Vec<Window>,
    /// Whether `run_command` may be used.
    pub allow_commands: bool,
    /// How old synced data may be.
    pub freshness: Freshness,
    /// What counts as cold, and what happens to it.
    pub cold_data: ColdData,
}

/// Who is asked, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Approvals {
    /// The lowest risk that asks under `approval: auto`.
    pub ask_from: Risk,
    /// When a request is rejected by itself.
    pub expires: Span,
    /// Whether who started a run may approve its changes.
    pub allow_self: bool,
}

/// What one session or step may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `statement_timeout` of reads.
    pub statement_timeout: Span,
    /// `lock_timeout` of reads and of changes that name none.
    pub lock_timeout: Span,
    /// `lock_timeout` of what builds, drops or rebuilds an index concurrently. It waits for old snapshots
    /// and hinders nobody meanwhile.
    pub concurrent_lock_timeout: Span,
    /// How long connecting may take.
    pub connect_timeout: Span,
    /// How long a run queues for a lock before it fails.
    pub lock_wait: Span,
    /// How long recovery waits for a backend that a dead process left at work.
    pub orphan_wait: Span,
    /// Resumes in a row without a newly settled step before a run is stuck.
    pub max_barren_resumes: u32,
    /// Maintenance budget: time allowed per GiB of the table, and the least.
    pub maintenance_per_gib: Span,
    /// The least maintenance budget.
    pub maintenance_floor: Span,
}

/// A warning and a critical level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The warning level.
    pub warning: f64,
    /// The critical level.
    pub critical: f64,
}

/// A cap on what runs may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// At most so much in one run.
    #[serde(default)]
    pub per_run: Option<u64>,
    /// At most so much in one day.
    #[serde(default)]
    pub per_day: Option<u64>,
}

/// A weekly maintenance window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days (`mon` … `sun`); empty: every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// `HH:MM`.
    pub from: String,
    /// `HH:MM`; before `from`: on the next day.
    pub to: String,
    /// An IANA time zone.
    #[serde(default = "utc")]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Default for Approvals {
    fn default() -> Self {
        Self { ask_from: Risk::High, expires: Span::from_secs(24 * 3600), allow_self: true }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            statement_timeout: Span::from_secs(30),
            lock_timeout: Span::from_secs(3),
            concurrent_lock_timeout: Span::from_secs(600),
            connect_timeout: Span::from_secs(10),
            lock_wait: Span::from_secs(3600),
            orphan_wait: Span::from_secs(600),
            max_barren_resumes: 10,
            maintenance_per_gib: Span::from_secs(600),
            maintenance_floor: Span::from_secs(600),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let level = |warning, critical| Threshold { warning, critical };
        // Ages in transactions, times in seconds, shares from 0 to 1.
        let thresholds = [
            ("cache_hit_ratio", level(0.99, 0.95)),
            ("connection_utilization", level(0.70, 0.85)),
            ("dead_tuple_ratio", level(0.10, 0.25)),
            ("lock_wait_seconds", level(30.0, 120.0)),
            ("deadlocks_per_hour", level(2.0, 5.0)),
            ("slow_query_seconds", level(5.0, 30.0)),
            ("txid_age", level(500e6, 1e9)),
            ("replication_lag_seconds", level(10.0, 60.0)),
            ("multixact_age", level(500e6, 1e9)),
            ("longest_transaction_seconds", level(3_600.0, 14_400.0)),
            ("sequence_used", level(0.75, 0.90)),
            ("slot_retained_bytes", level(10e9, 50e9)),
        ];
        let cap = |per_run, per_day| Cap { per_run: Some(per_run), per_day: Some(per_day) };
        let caps = [
            ("sessions_ended", cap(50, 500)),
            ("bytes_rewritten", cap(100 << 30, 500 << 30)),
            ("branches_deleted", cap(20, 100)),
        ];
        Self {
            approvals: Approvals::default(),
            limits: Limits::default(),
            thresholds: thresholds.map(|(name, level)| (name.to_owned(), level)).into(),
            caps: caps.map(|(name, cap)| (name.to_owned(), cap)).into(),
            windows: Vec::new(),
            allow_commands: false,
            freshness: Freshness::default(),
            cold_data: ColdData::default(),
        }
    }
}
