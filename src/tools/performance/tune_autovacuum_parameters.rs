//! Makes autovacuum come in time to tables that change too slowly for its share of the table, judged by
//! how fast they were seen to change.
//!
//! Reads: table statistics, autovacuum's settings, the history of table statistics.
//! Changes: storage parameters of tables, `alter table … set (…)`, one change for each table and kind of
//! visit; never one that somebody set by hand, and never to a later visit.
//! Undo: the parameters are reset.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, Query, Recovery, Risk, Span, SqlFile,
    Target, Timestamp,
};
use crate::sql_file;
use crate::tools::analysis::autovacuum::{Churn, Tuning, Wishes, tune};
use crate::tools::analysis::number::rounded;
use crate::tools::analysis::vacuum::{TableRow, is_switched_off};
use crate::tools::context::{ReadContext, ReadHistory};
use crate::tools::tool::{
    AnyTool, Ending, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool,
};
use crate::tools::vacuum_state::{HOLDERS, SETTINGS, TABLES, VacuumState, look, parse_names};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(TuneAutovacuumParameters));

static COUNTERS: SqlFile = sql_file!("performance/tune_autovacuum_parameters");
static GUARD: SqlFile = sql_file!("performance/tune_autovacuum_parameters.guard");
static OPTIONS: SqlFile = sql_file!("performance/tune_autovacuum_parameters.options");

/// How far back the history is read.
const WINDOW: Duration = Duration::from_hours(7 * 24);

struct TuneAutovacuumParameters;

/// Which tables, and how often autovacuum should come.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Only these tables, as `schema.name`.
    #[serde(default)]
    tables: Option<Vec<String>>,
    /// Tables with fewer rows are left alone.
    #[serde(default = "a_hundred_thousand")]
    min_rows: u64,
    /// The longest time between two visits for dead rows.
    #[serde(default = "a_day")]
    vacuum_every: Span,
    /// The longest time between two visits for inserted rows, where none die.
    #[serde(default = "a_week")]
    insert_vacuum_every: Span,
    /// The longest time between two ANALYZEs.
    #[serde(default = "a_week")]
    analyze_every: Span,
    /// Fewer rows than this are never worth a visit.
    #[serde(default = "ten_thousand")]
    least_rows: u64,
    /// What was seen over less than this says nothing about a day.
    #[serde(default = "an_hour")]
    min_window: Span,
}

const fn a_hundred_thousand() -> u64 {
    100_000
}

const fn ten_thousand() -> u64 {
    10_000
}

const fn an_hour() -> Span {
    Span::from_secs(3_600)
}

const fn a_day() -> Span {
    Span::from_secs(86_400)
}

const fn a_week() -> Span {
    Span::from_secs(7 * 86_400)
}

/// What was changed.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many tables have new parameters.
    tables_tuned: u64,
    /// The changes, in order.
    actions: Vec<Done>,
}

/// What became of one change.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Done {
    /// The table.
    table: String,
    /// The parameters that were set.
    parameters: BTreeMap<String, String>,
    /// How the change ended; `moot` when somebody else changed the parameters meanwhile.
    ended: Ending,
    /// Rows a day that it was judged by.
    churn_per_day: Option<f64>,
    /// The rows at which autovacuum came before.
    came_at: Option<f64>,
    /// The rows at which it comes now.
    comes_at: Option<f64>,
    /// Why.
    why: String,
}

/// The counters of a table.
#[derive(Clone, Debug, Deserialize)]
struct Counters {
    oid: i64,
    may_alter: bool,
    inserted: i64,
    updated: i64,
    deleted: i64,
    reset_at: Option<Timestamp>,
}

/// The counters of a table as the history knows them.
#[derive(Clone, Debug, Deserialize)]
struct Recorded {
    relid: i64,
    at: Timestamp,
    inserted: i64,
    updated: i64,
    deleted: i64,
}

impl WriteTool for TuneAutovacuumParameters {
    const META: ToolMeta = ToolMeta {
        name: "tune_autovacuum_parameters",
        family: Family::Performance,
        risk: Risk::Medium,
        revision: 1,
        summary: "Makes autovacuum come in time, by how fast tables were seen to change",
        sql: &[&TABLES, &SETTINGS, &HOLDERS, &COUNTERS, &GUARD, &OPTIONS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let names = params.tables.as_deref().map(parse_names).transpose()?;
        let state = look(cx, names.as_deref()).await?;
        let counters: Vec<Counters> = cx.pg.rows(&COUNTERS, &[]).await?;
        let now = cx.clock.now();
        let recorded = match cx.history {
            Some(history) => recorded(history, cx.target, now).await?,
            None => Vec::new(),
        };
        let seen = Seen { state, counters, recorded, now };
        Ok(ChangeSet::new(seen.changes(&params)))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let actions: Vec<Done> = settled.iter().map(done).collect();
        let mut tuned: Vec<&str> = actions
            .iter()
            .filter(|done| done.ended == Ending::Applied)
            .map(|done| done.table.as_str())
            .collect();
        tuned.dedup();
        Output { tables_tuned: tuned.len() as u64, actions }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        output.actions.iter().flat_map(history_rows).collect()
    }
}

/// The oldest counters of each table within the window.
async fn recorded(
    history: &dyn ReadHistory,
    target: &Target,
    now: Timestamp,
) -> Result<Vec<Recorded>, Failure> {
    let since = now.as_millis() - i64::try_from(WINDOW.as_millis()).unwrap_or(0);
    let text = "select relid, snapshot_timestamp as at, n_tup_ins as inserted, \
         n_tup_upd as updated, n_tup_del as deleted \
         from (select *, row_number() over (partition by relid order by snapshot_timestamp) as nth \
         from table_stats where snapshot_timestamp >= $1 and is_replica is not true \
         and coalesce(project_id, '') = $2 and coalesce(branch_id, '') = $3 \
         and coalesce(database_name, '') = $4) as t where nth = 1";
    let part = |part: &Option<String>| Bind::Text(part.clone().unwrap_or_default());
    let binds = vec![
        Bind::Timestamp(Timestamp::from_millis(since)),
        part(&target.project),
        part(&target.branch),
        part(&target.database),
    ];
    let rows = history.query(&Query::with_binds(text, binds)).await?;
    Ok(rows.into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect())
}

/// What was looked at.
struct Seen {
    state: VacuumState,
    counters: Vec<Counters>,
    recorded: Vec<Recorded>,
    now: Timestamp,
}

impl Seen {
    fn changes(&self, params: &Params) -> Vec<Change> {
        let days = |span: Span| span.0.as_secs_f64() / 86_400.0;
        let wishes = Wishes {
            dead_days: days(params.vacuum_every),
            inserted_days: days(params.insert_vacuum_every),
            analyze_days: days(params.analyze_every),
            least_rows: as_f64(params.least_rows),
        };
        let mut changes = Vec::new();
        for table in &self.state.tables {
            let counters = self.counters.iter().find(|it| it.oid == table.oid);
            let Some(counters) = counters.filter(|it| it.may_alter) else { continue };
            if table.reltuples < as_f64(params.min_rows) || is_switched_off(table) {
                continue;
            }
            let churn = self.churn(table, counters, params.min_window);
            let tunings = tune(table, &self.state.settings, churn, wishes);
            let mut options = table.options.clone();
            for tuning in tunings {
                changes.push(change(table, &options, &tuning));
                let set = tuning.set.iter().map(|(name, value)| format!("{name}={value}"));
                options.extend(set);
            }
        }
        changes
    }

    /// How fast a table changes: by the history, else since it was last vacuumed and analyzed.
    fn churn(&self, table: &TableRow, counters: &Counters, min_window: Span) -> Churn {
        self.by_history(counters, min_window).unwrap_or_else(|| {
            let enough = |seconds: Option<f64>| {
                seconds.filter(|seconds| *seconds >= min_window.0.as_secs_f64())
            };
            let per_day = |rows: i64, seconds: Option<f64>| {
                enough(seconds).map(|seconds| as_f64_signed(rows) / seconds * 86_400.0)
            };
            Churn {
                dead: per_day(table.dead_rows, table.vacuumed_seconds),
                inserted: per_day(table.inserted_rows, table.vacuumed_seconds),
                changed: per_day(table.changed_rows, table.analyzed_seconds),
            }
        })
    }

    fn by_history(&self, counters: &Counters, min_window: Span) -> Option<Churn> {
        let before = self.recorded.iter().find(|it| it.relid == counters.oid)?;
        let seconds = self.now.since(before.at).as_secs_f64();
        let reset = counters.reset_at.is_some_and(|reset| reset > before.at);
        let grown = [
            counters.inserted - before.inserted,
            counters.updated - before.updated,
            counters.deleted - before.deleted,
        ];
        if seconds < min_window.0.as_secs_f64() || reset || grown.iter().any(|grown| *grown < 0) {
            return None;
        }
        let per_day = |rows: i64| Some(as_f64_signed(rows) / seconds * 86_400.0);
        let [inserted, updated, deleted] = grown;
        Some(Churn {
            dead: per_day(updated + deleted),
            inserted: per_day(inserted),
            changed: per_day(inserted + updated + deleted),
        })
    }
}

fn change(table: &TableRow, options: &[String], tuning: &Tuning) -> Change {
    let name = table.qualified();
    let list = |item: fn(&(&'static str, String)) -> String| {
        tuning.set.iter().map(item).collect::<Vec<_>>().join(", ")
    };
    let set = list(|(parameter, value)| format!("{parameter} = {value}"));
    let reset = list(|(parameter, _)| (*parameter).to_owned());
    let operation = Operation::sql(format!("alter table {name} set ({set})"), Vec::new());
    let mut change = Change::new(&table.table_name, &tuning.why, operation);
    let bind = Bind::Text(table.table_name.clone());
    change.risk = Risk::Medium;
    change.recovery = Recovery::Transactional;
    change.guard = Some(Query::with_binds(
        GUARD.body(),
        vec![bind.clone(), Bind::TextArray(options.to_vec())],
    ));
    change.measure = Some(Query::with_binds(OPTIONS.body(), vec![bind]));
    change.inverse = Inverse::By {
        operation: Operation::sql(format!("alter table {name} reset ({reset})"), Vec::new()),
        recovery: Recovery::Transactional,
    };
    let parameters: BTreeMap<_, _> = tuning.set.iter().cloned().collect();
    change.facts = json!({
        "parameters": parameters,
        "churn_per_day": rounded(tuning.per_day),
        "came_at": rounded(tuning.now),
        "comes_at": rounded(tuning.then),
    });
    change
}

fn done(settled: &Settled<'_>) -> Done {
    let facts = &settled.change.facts;
    let number = |name: &str| facts.get(name).and_then(Value::as_f64);
    let parameters = facts.get("parameters").cloned().unwrap_or_default();
    Done {
        table: settled.change.object.clone(),
        parameters: serde_json::from_value(parameters).unwrap_or_default(),
        ended: settled.ending(),
        churn_per_day: number("churn_per_day"),
        came_at: number("came_at"),
        comes_at: number("comes_at"),
        why: settled.change.why.clone(),
    }
}

fn history_rows(done: &Done) -> Vec<HistoryRow> {
    let (schema, table) = done.table.split_once('.').unzip();
    let row = |(parameter, value): (&String, &String)| HistoryRow {
        table: "autovacuum_changes".to_owned(),
        row: json!({
            "schema_name": schema,
            "table_name": table.unwrap_or(&done.table),
            "parameter": parameter,
            "old_value": null,
            "new_value": value,
            "why": done.why,
            "status": done.ended,
            "churn_per_day": done.churn_per_day,
            "evidence": { "came_at": done.came_at, "comes_at": done.comes_at },
        }),
    };
    done.parameters.iter().map(row).collect()
}

#[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
const fn as_f64(rows: u64) -> f64 {
    rows as f64
}

#[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
const fn as_f64_signed(rows: i64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::analysis::vacuum::tests::{settings, table};

    fn seen(extra: &Value, recorded: Vec<Recorded>) -> Seen {
        let counters = Counters {
            oid: 1,
            may_alter: true,
            inserted: 1_000,
            updated: 250_000,
            deleted: 50_000,
            reset_at: None,
        };
        Seen {
            state: VacuumState {
                tables: vec![table(extra)],
                settings: settings(),
                holders: Vec::new(),
            },
            counters: vec![counters],
            recorded,
            now: Timestamp::from_millis(1_700_000_000_000),
        }
    }

    fn proposed(seen: &Seen) -> Vec<String> {
        let params = serde_json::from_value(json!({})).unwrap();
        seen.changes(&params).iter().map(|change| change.operation.to_string()).collect()
    }

    fn before(hours: i64, updated: i64) -> Recorded {
        let at = Timestamp::from_millis(1_700_000_000_000 - hours * 3_600_000);
        Recorded { relid: 1, at, inserted: 1_000, updated, deleted: 50_000 }
    }

    const SET: &str = "alter table \"public\".\"t\" set (autovacuum_vacuum_scale_factor = 0.01)";

    #[test]
    fn the_history_says_how_fast_a_table_changes() {
        let large = json!({"reltuples": 10e6});
        // 100,000 rows in a day: 20 days for VACUUM, 10 for ANALYZE.
        let analyze =
            SET.replace("vacuum_vacuum_scale_factor = 0.01", "vacuum_analyze_scale_factor = 0.05");
        assert_eq!(proposed(&seen(&large, vec![before(24, 150_000)])), [SET, &analyze]);
        // Counters that went back, and too short a window, say nothing.
        assert!(proposed(&seen(&large, vec![before(24, 900_000)])).is_empty());
        assert!(proposed(&seen(&large, Vec::new())).is_empty());
    }

    #[test]
    fn else_the_last_vacuum_does() {
        let since = json!({"reltuples": 10e6, "dead_rows": 50_000, "vacuumed_seconds": 43_200.0});
        assert_eq!(proposed(&seen(&since, Vec::new())), [SET]);
        let just_now = json!({"reltuples": 10e6, "dead_rows": 50_000, "vacuumed_seconds": 60.0});
        assert!(proposed(&seen(&just_now, Vec::new())).is_empty());
        let never = json!({"reltuples": 10e6, "dead_rows": 50_000, "vacuumed_seconds": null});
        assert!(proposed(&seen(&never, Vec::new())).is_empty());
    }

    #[test]
    fn tables_that_are_not_ours_or_small_are_left_alone() {
        let mut foreign = seen(&json!({"reltuples": 10e6}), vec![before(24, 150_000)]);
        foreign.counters[0].may_alter = false;
        assert!(proposed(&foreign).is_empty());
        let small = json!({"reltuples": 99_000.0});
        assert!(proposed(&seen(&small, vec![before(24, 249_000)])).is_empty());
        let off = json!({"reltuples": 10e6, "options": ["autovacuum_enabled=off"]});
        assert!(proposed(&seen(&off, vec![before(24, 150_000)])).is_empty());
    }

    #[test]
    fn the_change_is_guarded_and_taken_back() {
        let seen = seen(&json!({"reltuples": 10e6}), vec![before(24, 150_000)]);
        let params = serde_json::from_value(json!({})).unwrap();
        let change = &seen.changes(&params)[0];
        assert_eq!((change.risk, change.recovery), (Risk::Medium, Recovery::Transactional));
        assert!(change.guard.is_some());
        let Inverse::By { operation, .. } = &change.inverse else { panic!("{change:?}") };
        let reset = "alter table \"public\".\"t\" reset (autovacuum_vacuum_scale_factor)";
        assert_eq!(operation.to_string(), reset);
        let settled = [Settled { change, settlement: None }];
        let output = TuneAutovacuumParameters.report(&settled);
        assert_eq!((output.tables_tuned, output.actions.len()), (0, 1));
        let rows = TuneAutovacuumParameters.history(&output);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }
}
