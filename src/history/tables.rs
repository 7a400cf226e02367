//! Every table of the history, in one place. PURE.
//!
//! A column that is added here is added to the table by the next append; none is ever dropped or
//! changes its type. Counters stand beside the *statistics epoch* that they belong to: a difference of
//! two rows means something only when all of `epoch_id`, `stats_reset` and `postmaster_start` agree.

use super::schema::Kept::{Audit, Forever, Measurement};
use super::schema::{Column, TableDef, at, flag, float, id, int, json, text, time};

/// The table of this name.
pub fn find(name: &str) -> Option<&'static TableDef> {
    TABLES.iter().find(|table| table.name == name)
}

/// Rows that fit no table, as they were.
pub const REJECTED: &str = "rejected_rows";

/// Runs that are over.
pub const RUNS: &str = "workflow_runs";

/// Tries of steps.
pub const STEPS: &str = "step_runs";

/// Approvals that were asked for.
pub const APPROVALS: &str = "approvals";

/// Messages to people.
pub const ALERTS: &str = "alerts";

/// Rows that were moved out of their tables: the only copies there are.
pub const ARCHIVED: &str = "archived_rows";

/// Who did what. Appended last: its newest transaction says how far the journal was appended.
pub const AUDIT: &str = "audit";

macro_rules! columns {
    ($($make:ident: $($name:ident)+;)+) => {
        &[$($($make(stringify!($name)),)+)+]
    };
}

const fn table(
    name: &'static str,
    about: &'static str,
    time: &'static str,
    own: &'static [Column],
) -> TableDef {
    TableDef { name, about, kept: Measurement, time, own }
}

const fn audited(
    name: &'static str,
    about: &'static str,
    time: &'static str,
    own: &'static [Column],
) -> TableDef {
    TableDef { name, about, kept: Audit, time, own }
}

/// All tables.
pub const TABLES: &[TableDef] = &[
    // ---- measurements ------------------------------------------------------------------------
    table(
        "pg_stat_history",
        "statements of pg_stat_statements: counters, and what they grew by since the tick before; texts are \
         in query_texts, and who did nothing has no row",
        "snapshot_timestamp",
        columns! {
            id: row_id;
            text: snapshot_id;
            int: queryid userid dbid;
            flag: toplevel;
            text: user_name query;
            int: plans;
            float: total_plan_time min_plan_time max_plan_time mean_plan_time stddev_plan_time;
            int: calls;
            float: total_exec_time min_exec_time max_exec_time mean_exec_time stddev_exec_time;
            int: rows shared_blks_hit shared_blks_read shared_blks_dirtied shared_blks_written
                local_blks_hit local_blks_read local_blks_dirtied local_blks_written
                temp_blks_read temp_blks_written;
            float: shared_blk_read_time shared_blk_write_time local_blk_read_time
                local_blk_write_time temp_blk_read_time temp_blk_write_time;
            int: wal_records wal_fpi wal_bytes wal_buffers_full jit_functions;
            float: jit_generation_time;
            int: jit_inlining_count;
            float: jit_inlining_time;
            int: jit_optimization_count;
            float: jit_optimization_time;
            int: jit_emission_count;
            float: jit_emission_time;
            int: jit_deform_count;
            float: jit_deform_time;
            int: parallel_workers_to_launch parallel_workers_launched;
            float: window_seconds;
            int: calls_delta plans_delta rows_delta;
            float: total_exec_time_delta total_plan_time_delta shared_blk_read_time_delta
                shared_blk_write_time_delta;
            int: shared_blks_hit_delta shared_blks_read_delta shared_blks_dirtied_delta
                shared_blks_written_delta temp_blks_read_delta temp_blks_written_delta
                wal_records_delta wal_fpi_delta wal_bytes_delta;
            text: epoch_id;
            time: stats_since minmax_stats_since stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "query_texts",
        "the text of each statement, once",
        "first_seen_at",
        columns! {
            int: queryid dbid;
            text: query_digest query;
            at: first_seen_at;
        },
    ),
    table(
        "pg_stat_statements_info",
        "how many statements pg_stat_statements had to forget",
        "snapshot_timestamp",
        columns! {
            id: snapshot_id;
            int: dealloc dealloc_delta statements max_statements;
            text: epoch_id;
            time: stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "lakebase_metrics",
        "one value of one metric",
        "snapshot_timestamp",
        columns! {
            id: metric_id;
            text: metric_name;
            float: metric_value;
            text: threshold_level object_name epoch_id;
            time: stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "table_stats",
        "counters, sizes and ages of tables; who did not change since the tick before has no row",
        "snapshot_timestamp",
        columns! {
            text: snapshot_id schema_name table_name;
            int: relid seq_scan seq_tup_read idx_scan idx_tup_fetch n_tup_ins n_tup_upd n_tup_del
                n_tup_hot_upd n_tup_newpage_upd n_live_tup n_dead_tup n_mod_since_analyze
                n_ins_since_vacuum vacuum_count autovacuum_count analyze_count autoanalyze_count
                heap_blks_read heap_blks_hit relpages relallvisible table_size_bytes
                indexes_size_bytes toast_size_bytes total_size_bytes xid_age mxid_age;
            float: reltuples;
            time: last_seq_scan last_idx_scan last_vacuum last_autovacuum last_analyze
                last_autoanalyze;
            flag: is_replica;
            text: epoch_id;
            time: stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "index_stats",
        "use and size of indexes; who did not change since the tick before has no row",
        "snapshot_timestamp",
        columns! {
            text: snapshot_id schema_name table_name index_name;
            int: relid indexrelid idx_scan idx_tup_read idx_tup_fetch idx_blks_read idx_blks_hit
                index_size_bytes;
            flag: is_unique is_primary is_valid is_replica;
            text: index_definition endpoint_id;
            time: last_idx_scan;
            text: epoch_id;
            time: stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "lock_samples",
        "who waited for whom at a moment",
        "snapshot_timestamp",
        columns! {
            text: snapshot_id;
            int: pid;
            json: blocked_by;
            float: wait_seconds transaction_seconds;
            text: lock_type lock_mode relation user_name application_name state wait_event_type
                wait_event;
            int: queryid root_pid depth;
            text: query;
            at: snapshot_timestamp;
        },
    ),
    table(
        "checkpoint_stats",
        "checkpoints, background writing and WAL",
        "snapshot_timestamp",
        columns! {
            text: snapshot_id;
            int: num_timed num_requested num_done restartpoints_timed restartpoints_req
                restartpoints_done;
            float: write_time sync_time;
            int: buffers_written slru_written buffers_clean maxwritten_clean buffers_alloc
                wal_records wal_fpi wal_bytes wal_buffers_full;
            text: epoch_id;
            time: stats_reset wal_stats_reset postmaster_start;
            at: snapshot_timestamp;
        },
    ),
    table(
        "connection_samples",
        "how many connections were in which state",
        "snapshot_timestamp",
        columns! {
            text: snapshot_id state user_name application_name wait_event_type;
            int: connections max_connections;
            float: oldest_seconds utilization;
            at: snapshot_timestamp;
        },
    ),
    // ---- findings and what was done -----------------------------------------------------------
    audited(
        "index_recommendations",
        "advice about indexes, and what became of it: one row per change of its status",
        "created_at",
        columns! {
            id: recommendation_id;
            text: fingerprint table_name schema_name recommendation_type index_name
                suggested_columns confidence estimated_impact ddl_statement status why;
            float: score;
            int: size_bytes;
            json: evidence;
            at: created_at;
            time: reviewed_at;
            text: reviewed_by;
        },
    ),
    audited(
        "vacuum_history",
        "vacuums that were carried out",
        "executed_at",
        columns! {
            id: operation_id;
            text: table_name schema_name operation_type;
            int: dead_tuples_before dead_tuples_after bytes_before bytes_after;
            float: duration_seconds;
            at: executed_at;
            text: status;
        },
    ),
    audited(
        "autovacuum_changes",
        "storage parameters of autovacuum that were changed",
        "changed_at",
        columns! {
            id: change_id;
            text: schema_name table_name parameter old_value new_value why status;
            float: churn_per_day;
            json: evidence;
            at: changed_at;
        },
    ),
    audited(
        "sync_validation_history",
        "comparisons of a source with what was synced from it",
        "validated_at",
        columns! {
            id: validation_id;
            text: source_table target_table;
            int: source_count target_count count_drift;
            time: source_max_ts target_max_ts;
            float: freshness_lag_seconds;
            flag: checksum_match;
            text: status;
            json: details;
            at: validated_at;
        },
    ),
    table(
        "lakehouse_sync_status",
        "replication of tables into the lakehouse",
        "snapshot_timestamp",
        columns! {
            id: status_id;
            text: record_type client_addr state slot_name slot_type plugin;
            flag: active;
            text: sent_lsn write_lsn flush_lsn replay_lsn;
            int: sent_lag_bytes retained_bytes pending_bytes;
            float: write_lag_seconds flush_lag_seconds replay_lag_seconds;
            at: snapshot_timestamp;
        },
    ),
    audited(
        "branch_lifecycle",
        "what happened to branches and their endpoints",
        "event_timestamp",
        columns! {
            id: event_id;
            text: event_type source_branch branch_uid;
            int: ttl_seconds;
            flag: is_protected;
            text: actor creator_type reason;
            at: event_timestamp;
        },
    ),
    audited(
        "data_archival_history",
        "cold rows that were moved into archive tables",
        "archived_at",
        columns! {
            id: archival_id;
            text: source_table archive_delta_table;
            int: rows_archived bytes_reclaimed cold_threshold_days;
            text: predicate;
            at: archived_at;
            text: status;
        },
    ),
    TableDef {
        name: ARCHIVED,
        about: "rows that were moved out of their tables; `lakeops.archived_batch` says which are visible",
        kept: Forever,
        time: "archived_at",
        own: columns! {
            text: source_table batch_id row_key;
            int: row_hash;
            text: row;
            at: archived_at;
        },
    },
    audited(
        "migration_assessments",
        "how ready another database is to be moved",
        "assessed_at",
        columns! {
            id: assessment_id;
            text: source_kind source_version readiness;
            float: score;
            int: blockers warnings;
            json: findings profile;
            at: assessed_at;
        },
    ),
    audited(
        "masking_compliance_results",
        "whether branches hide what their parents hide",
        "validated_at",
        columns! {
            id: result_id;
            text: parent_branch_id;
            flag: compliant;
            int: parent_policy_count branch_policy_count;
            json: missing_policies;
            at: validated_at;
        },
    ),
    audited(
        "schema_diffs",
        "differences between the schemas of two branches",
        "compared_at",
        columns! {
            id: diff_id;
            text: from_branch to_branch object_type object_name change_type risk;
            text: statement;
            json: details;
            at: compared_at;
        },
    ),
    table(
        "cost_attribution",
        "what compute and storage cost, and for whom",
        "period_start",
        columns! {
            id: cost_id;
            text: endpoint_id team;
            float: compute_hours storage_gib_hours cost;
            text: currency sku_name usage_unit;
            float: usage_quantity;
            json: tags;
            time: period_end;
            at: period_start;
        },
    ),
    table(
        "capacity_forecasts",
        "trends of what fills up, with their interval",
        "forecast_at",
        columns! {
            id: forecast_id;
            text: metric_name method verdict;
            float: current_value slope_per_day lower upper predicted limit_value coverage;
            int: points horizon_days;
            time: predicted_for reaches_limit_at reaches_limit_earliest;
            json: details;
            at: forecast_at;
        },
    ),
    audited(
        "sop_executions",
        "rules that led to something, with the metric before and after",
        "executed_at",
        columns! {
            id: execution_id;
            text: sop object_name metric_name;
            float: before_value after_value;
            text: status;
            json: details;
            at: executed_at;
        },
    ),
    // ---- the engine's own, from the journal ---------------------------------------------------
    audited(
        RUNS,
        "runs that are over",
        "finished_at",
        columns! {
            text: workflow plan_id outcome compensation started_by started_from run_key forked_from
                failure_code failure_message;
            int: steps_succeeded steps_failed steps_skipped changes_applied changes_undone;
            float: duration_seconds;
            json: outputs;
            time: started_at;
            at: finished_at;
        },
    ),
    audited(
        STEPS,
        "tries of steps, one row each; a step that was skipped has one without a number",
        "ended_at",
        columns! {
            text: workflow;
            int: attempt;
            text: outcome failure_code failure_message reason;
            float: duration_seconds;
            int: history_rows;
            time: started_at;
            at: ended_at;
        },
    ),
    audited(
        APPROVALS,
        "approvals that were asked for, and the decisions",
        "requested_at",
        columns! {
            text: workflow change_set prompt risk reasons decision decided_by decided_from
                decision_reason;
            json: covers;
            float: waited_seconds;
            time: decided_at expires_at;
            at: requested_at;
        },
    ),
    audited(
        ALERTS,
        "messages that were sent to people",
        "raised_at",
        columns! {
            text: alert_id workflow severity title body;
            at: raised_at;
        },
    ),
    audited(
        REJECTED,
        "rows of tools that fit no table, as they were: a fault of the tool, nothing is lost",
        "rejected_at",
        columns! {
            id: row_id;
            text: table_name why;
            json: row;
            at: rejected_at;
        },
    ),
    audited(
        AUDIT,
        "who did what, when, why and from where",
        "at",
        columns! {
            int: position;
            text: actor actor_from action detail;
            at: at;
        },
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::history::schema::{DAY, Fill, Kind};

    #[test]
    fn every_table_is_sound() {
        let mut names = BTreeSet::new();
        for table in TABLES {
            assert!(names.insert(table.name), "{} twice", table.name);
            let columns: Vec<_> = table.columns().map(|column| column.name).collect();
            let distinct: BTreeSet<_> = columns.iter().collect();
            assert_eq!(distinct.len(), columns.len(), "{}: a column twice", table.name);
            let time = table.column(table.time).unwrap();
            assert_eq!((time.kind, time.fill), (Kind::Time, Fill::RecordedAt), "{}", table.name);
            assert_eq!(columns.last(), Some(&DAY));
        }
        assert_eq!(TABLES.last().unwrap().name, AUDIT, "the audit is appended last");
    }

    #[test]
    fn the_tables_that_were_asked_for_are_there() {
        let asked = "pg_stat_history index_recommendations vacuum_history lakebase_metrics \
            sync_validation_history branch_lifecycle data_archival_history migration_assessments \
            lakehouse_sync_status masking_compliance_results alerts workflow_runs step_runs \
            approvals schema_diffs cost_attribution capacity_forecasts connection_samples \
            autovacuum_changes sop_executions query_texts table_stats index_stats lock_samples \
            checkpoint_stats audit";
        for name in asked.split_whitespace() {
            assert!(find(name).is_some(), "{name}");
        }
    }
}
