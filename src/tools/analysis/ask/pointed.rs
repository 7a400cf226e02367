//! What `lakeops ask` points at and does not look at: verbs, and tools that change something or must be told
//! more. Reviewed by hand. PURE.

/// A verb of the command line that answers what no tool does.
#[derive(Debug)]
pub struct Verb {
    /// What to type.
    pub command: &'static str,
    /// What it does.
    pub does: &'static str,
    /// What people call it.
    pub called: &'static str,
}

/// The verbs that are pointed at.
pub const VERBS: &[Verb] = &[
    Verb {
        command: "lakeops audit",
        does: "shows who did what with lakeops, and when",
        called: "audit, who changed, who approved, who dropped, history of actions, who did it, log of changes",
    },
    Verb {
        command: "lakeops approvals",
        does: "lists what waits for approval",
        called: "approval, waiting for approval, what must i approve, pending approvals, sign off",
    },
    Verb {
        command: "lakeops runs",
        does: "lists runs of workflows and how they ended",
        called: "run, failed runs, workflow failed, did the workflow succeed, last run, nightly job",
    },
    Verb {
        command: "lakeops schedule list",
        does: "lists what runs by itself, and when it is due",
        called: "schedule, when is it due, scheduled, cron, next run, when does it run by itself",
    },
    Verb {
        command: "lakeops doctor",
        does: "says what is missing, and how to get it",
        called: "missing privileges, permission, setup, grant, cannot measure, not installed, role rights",
    },
    Verb {
        command: "lakeops history tables",
        does: "lists what was recorded over time; `lakeops history query` asks it",
        called: "history, recorded, over time, trend of, past values, metrics history, yesterday compared",
    },
];

/// What people call tools that are pointed at and not run.
pub const POINTED: &[(&str, &str)] = &[
    ("create_branch", "create a branch, new branch, make a branch, fork the database, test copy"),
    ("delete_branch", "delete a branch, remove branch, drop branch"),
    ("reset_branch_from_parent", "reset branch, refresh staging, set staging back to production"),
    ("protect_branch", "protect a branch, protected"),
    ("enforce_ttl_policies", "branch expire, expire policy, clean up branches"),
    ("apply_schema_migration", "apply migration, migrate, run ddl, add column, alter table"),
    ("inspect_migrations", "pending migrations, which migrations were applied, migration state"),
    ("schedule_vacuum_analyze", "run vacuum now, vacuum a table, analyze a table"),
    ("schedule_vacuum_full", "vacuum full now, rewrite table, shrink table"),
    (
        "tune_autovacuum_parameters",
        "tune autovacuum, more aggressive autovacuum, autovacuum per table",
    ),
    (
        "terminate_idle_connections",
        "kill idle connection, terminate connection, end session, disconnect",
    ),
    ("apply_index_recommendations", "create index, drop index, rebuild index now, apply advice"),
    ("archive_cold_data_to_delta", "archive a table, move old rows to delta, offload"),
    ("restore_archived_data", "restore archive, bring archived rows back, undo archive"),
    ("read_unified_rows", "read hot and archived rows together, unified view"),
    (
        "validate_sync_completeness",
        "is the table in sync, sync freshness, synced table stale, delta copy",
    ),
    (
        "validate_sync_integrity",
        "do table and delta copy agree, sync checksum, missing rows in copy",
    ),
    ("inspect_rls", "row level security check, tenant isolation, can tenants see each other"),
    ("configure_rls", "set up row level security, isolate tenants"),
    ("provision_lakebase_project", "new project, create a project, provision"),
];
