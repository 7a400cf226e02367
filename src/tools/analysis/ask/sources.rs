//! What `lakeops ask` can look at by itself, what people call it, what of it is evidence, and what would fix
//! it. PURE.
//!
//! Reviewed by hand, like an SOP. The names are those of read tools and of files of `sql/`; the workflow
//! `natural_language_dba` has a step for each, and a test compares the two. What is not here is still found
//! in the catalogue and pointed at, but not run: it changes something, or needs to be told more.

/// Something that is looked at.
#[derive(Debug)]
pub struct Source {
    /// The tool, or the file of `sql/`.
    pub name: &'static str,
    /// What people call it, beside what its name and its summary say.
    pub called: &'static str,
    /// Where its evidence stands.
    pub views: &'static [View],
    /// What would fix what it finds: the workflow first.
    pub remedies: &'static [Remedy],
    /// What is looked at as well when it is the first choice.
    pub also: &'static [&'static str],
}

/// A list, or an object with a row for each field, in what a source returns.
#[derive(Debug)]
pub struct View {
    /// Where: a JSON pointer.
    pub at: &'static str,
    /// What one row is, and several are.
    pub noun: (&'static str, &'static str),
    /// The columns that are shown.
    pub columns: &'static [&'static str],
    /// Whether a row says that something is wrong. Where rows have a level, only those beyond it do.
    pub matters: bool,
}

/// A command that fixes, or shows more.
#[derive(Debug)]
pub struct Remedy {
    /// What to type.
    pub command: &'static str,
    /// What it does.
    pub does: &'static str,
}

const fn view(
    at: &'static str,
    noun: (&'static str, &'static str),
    columns: &'static [&'static str],
) -> View {
    View { at, noun, columns, matters: true }
}

/// Rows that are told, and say nothing about what is wrong.
const fn listing(
    at: &'static str,
    noun: (&'static str, &'static str),
    columns: &'static [&'static str],
) -> View {
    View { at, noun, columns, matters: false }
}

const fn remedy(command: &'static str, does: &'static str) -> Remedy {
    Remedy { command, does }
}

/// The source of a name.
pub fn find(name: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.name == name)
}

const INDEX_REVIEW: Remedy = remedy(
    "lakeops run index_review",
    "puts it before a person, does it, and measures a day later whether it held",
);
const HEAL_BLOAT: Remedy = remedy(
    "lakeops run heal_bloat",
    "vacuums what is due, rewrites what is mostly empty after approval, proves it by size",
);
const RELIEVE: Remedy = remedy(
    "lakeops run relieve_connections",
    "ends the session that holds others up, and proves that it helped",
);
const GUARD: Remedy = remedy(
    "lakeops run wraparound_guard",
    "ends who holds old transactions back, vacuums the oldest tables, proves it by age",
);
const ARCHIVE: Remedy = remedy(
    "lakeops run archive_cold_data",
    "moves rows that nobody touches any more into the archive, after approval",
);
const HOUSEKEEPING: Remedy = remedy(
    "lakeops run branch_housekeeping",
    "makes branches expire, deletes the overdue, tells when a project is nearly full",
);

/// Everything that is looked at.
pub const SOURCES: &[Source] = &[
    Source {
        name: "analyze_slow_queries",
        called: "slow statement, takes forever, performance problem, latency, application slow, page loads \
                 slow, bad plan, rewrite, explain statement, cost most, cpu, expensive statement, optimise",
        views: &[view(
            "/analyses",
            ("costly statement", "costly statements"),
            &["query", "mean_exec_time_ms", "total_calls", "time_share", "findings"],
        )],
        remedies: &[
            remedy(
                "lakeops run analyze_slow_queries_with_ai",
                "explains more of them, with a model where one is configured",
            ),
            INDEX_REVIEW,
        ],
        also: &["detect_missing_indexes", "monitor_connections"],
    },
    Source {
        name: "catalog/pg_stat_statements_slow",
        called: "top statements by time, most time, most calls, cost most, called most often, workload, \
                 ranking of statements, load by statement",
        views: &[view(
            "/rows",
            ("statement", "statements"),
            &["query", "calls", "mean_exec_time", "total_exec_time", "share"],
        )],
        remedies: &[remedy(
            "lakeops run analyze_slow_queries_with_ai",
            "says what is wrong with each, by rules and a model where one is configured",
        )],
        also: &[],
    },
    Source {
        name: "detect_missing_indexes",
        called: "missing index, index advice, recommend index, suggest index, which index to create, \
                 sequential scan, full table scan, lacks an index",
        views: &[view(
            "/findings",
            ("missing index", "missing indexes"),
            &["table", "columns", "rows", "expected_rows", "size_bytes"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "catalog/unused_indexes",
        called: "unused index, index never scanned, drop index, can i drop an index, useless index, index \
                 nobody uses, too many indexes, remove index",
        views: &[view(
            "/rows",
            ("index that nobody has scanned", "indexes that nobody has scanned"),
            &["schema_name", "table_name", "index_name", "index_size_bytes", "counted_since"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &["detect_unused_indexes"],
    },
    Source {
        name: "detect_unused_indexes",
        called: "observed over weeks, watched by us",
        views: &[view(
            "/findings",
            ("watched index", "watched indexes"),
            &["table", "index", "verdict", "quiet_days", "size_bytes"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "detect_duplicate_indexes",
        called: "duplicate index, redundant index, overlapping index, same columns, covered by another index",
        views: &[view(
            "/findings",
            ("superfluous index", "superfluous indexes"),
            &["table", "index", "kept", "exact", "size_bytes"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "detect_bloated_indexes",
        called: "bloated index, index bloat, reindex, rebuild index, index too large, index mostly empty",
        views: &[view(
            "/findings",
            ("bloated index", "bloated indexes"),
            &["table", "index", "bloat_ratio", "bloat_bytes", "size_bytes"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "detect_invalid_indexes",
        called: "invalid index, broken index, failed create index concurrently, half built index",
        views: &[view(
            "/findings",
            ("invalid index", "invalid indexes"),
            &["table", "index", "costs_writes", "size_bytes"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "detect_missing_fk_indexes",
        called: "foreign key without index, fk index, slow delete of parent, cascade slow, unindexed fk",
        views: &[view(
            "/findings",
            ("foreign key that no index serves", "foreign keys that no index serves"),
            &["table", "constraint", "columns", "references", "rows"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "identify_tables_needing_vacuum",
        called: "needs vacuum, vacuum is due, table bloat, bloated table, wasted space, dead tuple, vacuum not \
                 working, reclaim space, why does vacuum not remove dead rows, vacuum full, analyze, stale \
                 statistics, autovacuum cannot follow, autovacuum behind",
        views: &[
            view(
                "/tables",
                ("table that needs it", "tables that need it"),
                &[
                    "table",
                    "verdict",
                    "dead_rows",
                    "dead_ratio",
                    "bloat_ratio",
                    "size_bytes",
                    "blocked_by",
                ],
            ),
            view(
                "/horizon_holders",
                ("holder of old rows", "holders of old rows"),
                &["kind", "name", "pid", "held_seconds", "application"],
            ),
        ],
        remedies: &[
            HEAL_BLOAT,
            remedy(
                "lakeops run vacuum_window",
                "vacuums what is due, and makes autovacuum come in time",
            ),
        ],
        also: &[],
    },
    Source {
        name: "catalog/table_dead_tuples",
        called: "most dead tuples, dead rows by table, when was the table last vacuumed, last autovacuum, \
                 last vacuum time, garbage",
        views: &[view(
            "/rows",
            ("table with dead rows", "tables with dead rows"),
            &[
                "schema_name",
                "table_name",
                "n_dead_tup",
                "dead_ratio",
                "last_vacuum",
                "last_autovacuum",
            ],
        )],
        remedies: &[HEAL_BLOAT],
        also: &[],
    },
    Source {
        name: "shared/autovacuum_settings",
        called: "autovacuum settings, autovacuum on or off, is autovacuum enabled, autovacuum configuration, \
                 autovacuum threshold, autovacuum scale factor",
        views: &[listing(
            "/rows",
            ("set of settings", "sets of settings"),
            &["autovacuum", "threshold", "scale_factor", "insert_threshold", "freeze_max_age"],
        )],
        remedies: &[remedy(
            "lakeops tools run tune_autovacuum_parameters --preview",
            "shows which tables would get settings of their own",
        )],
        also: &[],
    },
    Source {
        name: "check_txid_wraparound_risk",
        called: "wraparound, transaction ids run out, xid age, multixact, freeze, read only soon, emergency \
                 vacuum, age of the oldest table",
        views: &[
            view(
                "/databases",
                ("database", "databases"),
                &["database", "level", "xid_age", "xid_used", "multixact_used"],
            ),
            listing(
                "/tables",
                ("old table", "old tables"),
                &["table", "xid_age", "due", "size_bytes", "blocked_by"],
            ),
        ],
        remedies: &[GUARD],
        also: &[],
    },
    Source {
        name: "shared/horizon_holders",
        called: "horizon, what holds back vacuum, prevents vacuum, long transaction, oldest snapshot, old \
                 transaction open for hours, xmin",
        views: &[view(
            "/rows",
            ("holder of old rows", "holders of old rows"),
            &[
                "kind",
                "name",
                "pid",
                "held_seconds",
                "xid_age",
                "user_name",
                "application",
                "state",
            ],
        )],
        remedies: &[RELIEVE, GUARD],
        also: &["monitor_connections"],
    },
    Source {
        name: "shared/prepared_transactions",
        called: "prepared transaction, two phase commit, forgotten prepared transaction, 2pc, orphaned \
                 prepared",
        views: &[view(
            "/rows",
            ("prepared transaction", "prepared transactions"),
            &["gid", "user_name", "database_name", "prepared_seconds", "waiters"],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "monitor_connections",
        called: "connection, how many connections, who is connected, connection limit, too many clients, \
                 connection count, connections by user, by application, by state, what is running right now, \
                 running statements, activity, who is using it",
        views: &[
            listing(
                "/working",
                ("session at work", "sessions at work"),
                &["pid", "user", "application", "query_seconds", "query"],
            ),
            view(
                "/blockers",
                ("session that holds others up", "sessions that hold others up"),
                &["pid", "user", "application", "state", "blocked", "query"],
            ),
            view(
                "/waiting",
                ("session that waits for a lock", "sessions that wait for a lock"),
                &["pid", "blocked_by", "wait_seconds", "waiting_for", "user", "application"],
            ),
            listing(
                "/idle_in_transaction",
                ("session idle in a transaction", "sessions idle in a transaction"),
                &["pid", "user", "application", "idle_seconds"],
            ),
        ],
        remedies: &[RELIEVE],
        also: &["shared/connection_limits"],
    },
    Source {
        name: "shared/connection_limits",
        called: "connection limit, max connections setting, how many connections are allowed, reserved \
                 connections",
        views: &[listing(
            "/rows",
            ("limit", "limits"),
            &["max_connections", "superuser_reserved", "reserved"],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "catalog/idle_connections",
        called: "idle connection, idle transaction, sleeping connection, connection leak, leaked connections, \
                 abandoned session, doing nothing, idle for long",
        views: &[view(
            "/rows",
            ("idle session", "idle sessions"),
            &["pid", "user_name", "application_name", "state", "idle_seconds", "holds_xmin"],
        )],
        remedies: &[
            remedy(
                "lakeops tools run terminate_idle_connections --preview",
                "shows which idle sessions it would end",
            ),
            RELIEVE,
        ],
        also: &[],
    },
    Source {
        name: "performance/collect_sessions.locks",
        called: "lock, wait, block, who blocks whom, who is blocking, lock wait, lock queue, stuck statement, \
                 hanging update, alter table waits, ddl waits, contention, locked table",
        views: &[view(
            "/rows",
            ("session that waits for a lock", "sessions that wait for a lock"),
            &["pid", "blocked_by", "wait_seconds", "relation", "lock_mode", "user_name", "query"],
        )],
        remedies: &[RELIEVE],
        also: &["monitor_connections"],
    },
    Source {
        name: "monitor_system_health",
        called: "health, overall state, is everything fine, all metrics, overview, cache hit ratio, buffer \
                 cache, deadlock, checkpoint, io, wal rate, temp file, commits per second, rate, database ok, \
                 how is it doing",
        views: &[view(
            "/metrics",
            ("metric", "metrics"),
            &["metric", "value", "unit", "level", "detail"],
        )],
        remedies: &[remedy(
            "lakeops run watch_health_full",
            "measures the same every five minutes under `lakeops serve`, and tells what begins and ends",
        )],
        also: &[],
    },
    Source {
        name: "diagnose_root_cause",
        called: "cause, what is wrong, why did it happen, root cause, incident, outage, what happened, spike, \
                 everything is slow suddenly, what changed, culprit, problem, change",
        views: &[
            view(
                "/causes",
                ("suspected cause", "suspected causes"),
                &["title", "object", "score", "evidence_for", "evidence_against"],
            ),
            listing(
                "/evidence/changes",
                ("recent change by lakeops", "recent changes by lakeops"),
                &["at", "actor", "detail"],
            ),
        ],
        remedies: &[
            remedy(
                "lakeops tools run self_heal -p issue=METRIC",
                "heals what may be healed without a person, and escalates the rest",
            ),
            remedy("lakeops audit", "shows who did what, and when"),
        ],
        also: &["monitor_system_health"],
    },
    Source {
        name: "catalog/database_stats",
        called: "database counters, commits and rollbacks, how many transactions, rollback, deadlock count, \
                 temporary bytes, statistics reset",
        views: &[listing(
            "/rows",
            ("database", "databases"),
            &[
                "database_name",
                "numbackends",
                "xact_commit",
                "xact_rollback",
                "deadlocks",
                "temp_bytes",
            ],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "catalog/replication_slots",
        called: "replication slot, slot keeps wal, inactive slot, wal retained, wal directory grows, pg_wal \
                 full, wal piling up, logical slot",
        views: &[listing(
            "/rows",
            ("replication slot", "replication slots"),
            &["slot_name", "slot_type", "active", "retained_bytes", "wal_status", "inactive_since"],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "catalog/wal_senders",
        called: "replication lag, how far behind is the replica, standby delay, replica delay, replication \
                 delay, lakehouse sync lag",
        views: &[listing(
            "/rows",
            ("receiver", "receivers"),
            &["application_name", "state", "sync_state", "replay_lag_bytes", "replay_lag_seconds"],
        )],
        remedies: &[],
        also: &["catalog/replication_slots"],
    },
    Source {
        name: "shared/sequence_use",
        called: "sequence, sequence near its end, run out of ids, serial overflow, integer primary key \
                 exhausted, nextval maximum",
        views: &[listing(
            "/rows",
            ("sequence", "sequences"),
            &["sequence", "used", "last_value", "end_value", "column_type"],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "performance/collect_statistics.tables",
        called: "large table, biggest table, table size, storage size by table, how big is the table, number \
                 of rows, row count, most written table, hot table, disk usage",
        views: &[listing(
            "/rows",
            ("table", "tables"),
            &[
                "schema_name",
                "table_name",
                "total_size_bytes",
                "n_live_tup",
                "n_dead_tup",
                "seq_scan",
            ],
        )],
        remedies: &[ARCHIVE],
        also: &[],
    },
    Source {
        name: "performance/collect_statistics.indexes",
        called: "large index, biggest index, index size, index usage, how often is an index used, list of \
                 indexes, index scans",
        views: &[listing(
            "/rows",
            ("index", "indexes"),
            &["schema_name", "table_name", "index_name", "index_size_bytes", "idx_scan"],
        )],
        remedies: &[INDEX_REVIEW],
        also: &[],
    },
    Source {
        name: "identify_cold_data",
        called: "cold, old data, archive candidates, what can be archived, historical rows, rows nobody \
                 touches, retention, save storage",
        views: &[view(
            "/candidates",
            ("table with cold rows", "tables with cold rows"),
            &[
                "table",
                "column",
                "estimated_cold_rows",
                "estimated_cold_bytes",
                "archivable",
                "obstacles",
            ],
        )],
        remedies: &[ARCHIVE],
        also: &[],
    },
    Source {
        name: "forecast_capacity_needs",
        called: "forecast, growth, when will the storage be full, run out of space, capacity planning, how fast \
                 does it grow, storage next month, connections next month, trend, full soon",
        views: &[listing(
            "/forecasts",
            ("forecast", "forecasts"),
            &["metric", "verdict", "current", "slope_per_day", "days_to_limit", "points"],
        )],
        remedies: &[remedy(
            "lakeops run capacity_review",
            "does that every week, and alerts in time",
        )],
        also: &["performance/collect_statistics.tables"],
    },
    Source {
        name: "collect_pg_stat_statements_info",
        called: "does pg_stat_statements forget, statements statistics lost, dealloc, is pg_stat_statements \
                 large enough, pg_stat_statements reset",
        views: &[listing(
            "",
            ("fact", "facts"),
            &["statements", "max_statements", "dealloc", "stats_reset", "note"],
        )],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "doctor/extensions",
        called: "extension installed, which extensions, is pg_stat_statements installed, pgstattuple",
        views: &[listing(
            "/rows",
            ("extension", "extensions"),
            &["name", "available", "installed"],
        )],
        remedies: &[remedy("lakeops doctor", "says what is missing, and how to get it")],
        also: &[],
    },
    Source {
        name: "inspect_project",
        called: "list branches, which branches exist, project branches, computes, endpoints of the project, \
                 parent of a branch, protected branches, branch expire",
        views: &[listing(
            "/branches",
            ("branch", "branches"),
            &["branch", "source_branch", "state", "is_protected", "expire_time", "children"],
        )],
        remedies: &[HOUSEKEEPING],
        also: &["monitor_branch_count"],
    },
    Source {
        name: "monitor_branch_count",
        called: "how many branches, branch limit, too many branches, branches left, branches without expiry, \
                 forgotten branches, orphaned branches, old branches",
        views: &[view(
            "",
            ("count", "counts"),
            &[
                "branch_count",
                "max_limit",
                "utilization",
                "level",
                "missing_ttl",
                "expired",
                "orphans",
            ],
        )],
        remedies: &[HOUSEKEEPING],
        also: &[],
    },
    Source {
        name: "list_active_branches",
        called: "awake branches, which computes are running, suspended compute, active branches, compute state",
        views: &[
            listing("/branches", ("branch that is awake", "branches that are awake"), &["value"]),
            listing(
                "/left_alone",
                ("branch left alone", "branches left alone"),
                &["branch", "why"],
            ),
        ],
        remedies: &[],
        also: &[],
    },
    Source {
        name: "capture_schema_diff",
        called: "schema diff, difference between branch and parent, schema drift, what is different in this \
                 branch, compare schema with production, columns added",
        views: &[view(
            "/differences",
            ("difference", "differences"),
            &["action", "kind", "object", "impact", "why"],
        )],
        remedies: &[remedy(
            "lakeops run test_migration_on_branch",
            "tries migrations on a branch, compares its structure, and tests it",
        )],
        also: &[],
    },
];
