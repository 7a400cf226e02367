//! Says how far a server is from stopping for want of transaction numbers, which tables hold it back, and
//! what keeps VACUUM from helping.
//!
//! Reads: ages of databases and tables, the counters of transactions and multixacts, what holds old
//! snapshots, earlier looks.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::Settings;
use crate::kernel::{Bind, Failure, Query, Risk, SqlFile, Timestamp};
use crate::sql_file;
use crate::tools::analysis::level::{Level, level_of};
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::vacuum::Holder;
use crate::tools::analysis::wraparound::{
    Consumption, MEMBERS_SAFE, STOPS_AT, Sample, consumption, days_until, members_used,
    reachable_age, remedy, used,
};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, HistoryRow, Read, ReadTool, ToolMeta};
use crate::tools::vacuum_state::HOLDERS;

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(CheckTxidWraparoundRisk));

static STATE: SqlFile = sql_file!("performance/check_txid_wraparound_risk");
static DATABASES: SqlFile = sql_file!("performance/check_txid_wraparound_risk.databases");
static TABLES: SqlFile = sql_file!("performance/check_txid_wraparound_risk.tables");
static MEMBERS: SqlFile = sql_file!("performance/check_txid_wraparound_risk.members");

/// How far back the pace is measured where the history knows it.
const WINDOW: Duration = Duration::from_hours(7 * 24);

struct CheckTxidWraparoundRisk;

/// What counts as old.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The age from which on a table is to be vacuumed at once; by default that at which autovacuum
    /// should have come by force (`autovacuum_freeze_max_age`).
    #[serde(default)]
    vacuum_from: Option<i64>,
    /// The same for multixacts; by default `autovacuum_multixact_freeze_max_age`.
    #[serde(default)]
    multixact_vacuum_from: Option<i64>,
    /// How many tables are looked at, the oldest first.
    #[serde(default = "a_hundred")]
    most_tables: u32,
}

const fn a_hundred() -> u32 {
    100
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// That of the worst database.
    level: Level,
    /// Every database of the server, the oldest first: the oldest decides for all.
    databases: Vec<AgedDatabase>,
    /// The oldest tables of this database.
    tables: Vec<AgedTable>,
    /// The tables of this database that a plain VACUUM should take at once, the oldest first.
    vacuum: Vec<String>,
    /// What keeps VACUUM from making anything younger, the oldest first.
    horizon_holders: Vec<Held>,
    /// How fast numbers go; absent until it was looked twice.
    consumption: Option<Consumption>,
    /// Days until autovacuum comes by force; absent while the pace is not known.
    days_to_forced_vacuum: Option<f64>,
    /// Days until the server stops taking writes, if nothing is frozen.
    days_to_stop: Option<f64>,
    /// The share of the space for members of multixacts that is used.
    members_used: Option<f64>,
    /// What to do, in this order.
    actions: Vec<String>,
    /// What this look saw of the counters; later ones go on from here.
    sample: Sample,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

/// One database.
#[derive(Debug, Serialize, JsonSchema)]
struct AgedDatabase {
    /// Its name.
    database: String,
    /// How bad it is.
    level: Level,
    /// The age of its oldest transaction.
    xid_age: i64,
    /// The same as a share of 2³¹.
    xid_used: f64,
    /// The age of its oldest multixact.
    multixact_age: i64,
    /// The same as a share of 2³¹.
    multixact_used: f64,
    /// Whether this is where it was looked from: only here can this run vacuum.
    is_current: bool,
}

/// One table.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "rules ask each of them by itself")]
struct AgedTable {
    /// The table, quoted where it must be.
    table: String,
    /// The age of its oldest transaction, TOAST included.
    xid_age: i64,
    /// The age of its oldest multixact.
    multixact_age: i64,
    /// Whether it is its TOAST that is so old.
    in_toast: bool,
    /// Bytes at the last VACUUM.
    size_bytes: u64,
    /// Whether it is a system catalog.
    is_system: bool,
    /// Whether it is a temporary table: only its own session can vacuum it.
    is_temporary: bool,
    /// Whether it is old enough to be vacuumed at once.
    due: bool,
    /// The age that VACUUM can bring it to at best.
    reachable_age: i64,
    /// Who must let go before VACUUM helps.
    blocked_by: Vec<String>,
    /// Whether we may vacuum it.
    may_vacuum: bool,
    /// Whether autovacuum is switched off for it; it comes by force all the same.
    autovacuum_off: bool,
    /// Whether it is being vacuumed now.
    vacuum_running: bool,
}

/// Who holds old rows, and how it lets go.
#[derive(Debug, Serialize, JsonSchema)]
struct Held {
    /// Who.
    #[serde(flatten)]
    holder: Holder,
    /// Whether it holds this database for sure.
    certain: bool,
    /// What makes it let go.
    remedy: String,
}

#[derive(Clone, Debug, Deserialize)]
struct State {
    next_xid: i64,
    next_multixact: i64,
    autovacuum: bool,
    freeze_max_age: i64,
    multixact_freeze_max_age: i64,
    failsafe_age: i64,
    multixact_failsafe_age: i64,
    in_recovery: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct DatabaseRow {
    database_name: String,
    is_current: bool,
    may_connect: bool,
    xid_age: i64,
    multixact_age: i64,
}

#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "one field for each column of the query")]
struct TableRow {
    table_name: String,
    is_system: bool,
    is_temporary: bool,
    owner: String,
    may_vacuum: bool,
    xid_age: i64,
    multixact_age: i64,
    in_toast: bool,
    size_bytes: u64,
    options: Vec<String>,
    vacuum_running: bool,
}

#[derive(Deserialize)]
struct Members {
    files: Option<u64>,
}

impl ReadTool for CheckTxidWraparoundRisk {
    const META: ToolMeta = ToolMeta {
        name: "check_txid_wraparound_risk",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Says how far transaction numbers reach, and what holds old ones back",
        sql: &[&STATE, &DATABASES, &TABLES, &MEMBERS, &HOLDERS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;
    // The pace is measured from the oldest of them where no history is kept.
    const EARLIER: u32 = 12;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let most = [Bind::Int(params.most_tables.into())];
        let state: State = cx.pg.row(&STATE, &[]).await?;
        // The right to call a function is asked for when a plan begins, whatever its conditions say.
        let member_files = match cx.pg.row::<Members>(&MEMBERS, &[]).await {
            Ok(members) => members.files,
            Err(error) if error.sqlstate() == Some("42501") => None,
            Err(error) => return Err(error.into()),
        };
        let server = cx.pg.server().await?;
        let sample = Sample {
            at: cx.clock.now().to_string(),
            server: server.system_identifier.unwrap_or_default(),
            next_xid: state.next_xid,
            next_multixact: state.next_multixact,
        };
        let seen = Seen {
            databases: cx.pg.rows(&DATABASES, &[]).await?,
            tables: cx.pg.rows(&TABLES, &most).await?,
            holders: cx.pg.rows(&HOLDERS, &[]).await?,
            member_files,
            before: before(cx, &sample).await?,
            state,
            sample,
        };
        Ok(judge(&seen, &params, cx.settings))
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let sample = &output.sample;
        let of_server = |name: &str, value: i64| row(name, &sample.server, value, None);
        let of_database = |database: &AgedDatabase| {
            let AgedDatabase { database: name, level, xid_age, multixact_age, .. } = database;
            [
                row("txid_age", name, *xid_age, Some(*level)),
                row("multixact_age", name, *multixact_age, Some(*level)),
            ]
        };
        let mut rows = vec![
            of_server("next_xid", sample.next_xid),
            of_server("next_multixact", sample.next_multixact),
        ];
        rows.extend(output.databases.iter().flat_map(of_database));
        rows
    }
}

fn row(metric: &str, object: &str, value: i64, level: Option<Level>) -> HistoryRow {
    HistoryRow {
        table: "lakebase_metrics".to_owned(),
        row: json!({
            "metric_name": metric,
            "object_name": object,
            "metric_value": value,
            "threshold_level": level,
        }),
    }
}

/// The oldest comparable look within the window: of the history, else of the newest runs.
async fn before(cx: &ReadContext<'_>, now: &Sample) -> Result<Option<Sample>, Failure> {
    let in_history = match cx.history {
        Some(history) => {
            let since = Timestamp::from_millis(
                cx.clock.now().as_millis() - i64::try_from(WINDOW.as_millis()).unwrap_or(0),
            );
            let text = "select x.snapshot_timestamp as at, x.metric_value as next_xid, \
                 m.metric_value as next_multixact \
                 from lakebase_metrics as x join lakebase_metrics as m \
                 on m.snapshot_timestamp = x.snapshot_timestamp and m.object_name = x.object_name \
                 where x.metric_name = 'next_xid' and m.metric_name = 'next_multixact' \
                 and x.object_name = $1 and x.snapshot_timestamp >= $2 \
                 order by x.snapshot_timestamp limit 1";
            let binds = vec![Bind::Text(now.server.clone()), Bind::Timestamp(since)];
            let rows = history.query(&Query::with_binds(text, binds)).await?;
            rows.first().and_then(|row| recorded(row, &now.server))
        }
        None => None,
    };
    let in_runs = || {
        let sample = |output: &Value| Sample::deserialize(output.get("sample")?).ok();
        let mut samples = cx.earlier.iter().filter_map(sample);
        samples.rfind(|sample| sample.server == now.server)
    };
    Ok(in_history.or_else(in_runs))
}

#[expect(clippy::cast_possible_truncation, reason = "counters are whole, and far below 2^53")]
fn recorded(row: &Value, server: &str) -> Option<Sample> {
    Some(Sample {
        at: row.get("at")?.as_str()?.to_owned(),
        server: server.to_owned(),
        next_xid: row.get("next_xid")?.as_f64()? as i64,
        next_multixact: row.get("next_multixact")?.as_f64()? as i64,
    })
}

/// What was looked at.
struct Seen {
    state: State,
    databases: Vec<DatabaseRow>,
    tables: Vec<TableRow>,
    holders: Vec<Holder>,
    member_files: Option<u64>,
    before: Option<Sample>,
    sample: Sample,
}

impl Seen {
    fn due_at(&self, params: &Params) -> (i64, i64) {
        (
            params.vacuum_from.unwrap_or(self.state.freeze_max_age),
            params.multixact_vacuum_from.unwrap_or(self.state.multixact_freeze_max_age),
        )
    }
}

fn judge(seen: &Seen, params: &Params, settings: &Settings) -> Output {
    let due_at = seen.due_at(params);
    let databases: Vec<AgedDatabase> =
        seen.databases.iter().map(|row| database(row, settings)).collect();
    let tables: Vec<AgedTable> =
        seen.tables.iter().map(|row| table(row, &seen.holders, due_at)).collect();
    let pace = seen.before.as_ref().and_then(|before| consumption(before, &seen.sample));
    let oldest = |age: fn(&AgedDatabase) -> i64| databases.iter().map(age).max().unwrap_or(0);
    let ages = (oldest(|it| it.xid_age), oldest(|it| it.multixact_age));
    let soonest = |limits: (i64, i64)| {
        let pace = pace.as_ref()?;
        let days = [
            days_until(limits.0, ages.0, pace.transactions_per_day),
            days_until(limits.1, ages.1, pace.multixacts_per_day),
        ];
        days.into_iter().flatten().min_by(f64::total_cmp)
    };
    let forced = (seen.state.freeze_max_age, seen.state.multixact_freeze_max_age);
    let ready = |table: &&AgedTable| {
        table.due && table.may_vacuum && !table.vacuum_running && !table.is_temporary
    };
    let members_used = seen.member_files.map(members_used);
    let mut output = Output {
        level: databases.iter().map(|it| it.level).max().unwrap_or(Level::NotMeasured),
        vacuum: tables.iter().filter(ready).map(|table| table.table.clone()).collect(),
        horizon_holders: seen.holders.iter().map(held).collect(),
        days_to_forced_vacuum: soonest(forced),
        days_to_stop: soonest((STOPS_AT, STOPS_AT)),
        consumption: pace,
        members_used,
        actions: Vec::new(),
        sample: seen.sample.clone(),
        not_measured: not_measured(seen),
        databases,
        tables,
    };
    if members_used.is_some_and(|used| used > MEMBERS_SAFE) {
        output.level = output.level.max(Level::Warning);
    }
    output.actions = actions(seen, &output);
    output
}

fn database(row: &DatabaseRow, settings: &Settings) -> AgedDatabase {
    let of = |metric: &str, age: i64| {
        #[expect(clippy::cast_precision_loss, reason = "ages are below 2^32")]
        level_of(settings, metric, age as f64)
    };
    AgedDatabase {
        database: row.database_name.clone(),
        level: of("txid_age", row.xid_age).max(of("multixact_age", row.multixact_age)),
        xid_age: row.xid_age,
        xid_used: used(row.xid_age),
        multixact_age: row.multixact_age,
        multixact_used: used(row.multixact_age),
        is_current: row.is_current,
    }
}

fn table(row: &TableRow, holders: &[Holder], due_at: (i64, i64)) -> AgedTable {
    let due = row.xid_age > due_at.0 || row.multixact_age > due_at.1;
    let reachable = reachable_age(holders, row.is_system);
    // Whoever is younger than the limit leaves VACUUM room enough to bring the table below it.
    let in_the_way = |holder: &&Holder| {
        row.xid_age > due_at.0
            && holder.is_certain()
            && holder.xid_age > due_at.0
            && (row.is_system || !holder.catalog_only)
    };
    AgedTable {
        table: row.table_name.clone(),
        xid_age: row.xid_age,
        multixact_age: row.multixact_age,
        in_toast: row.in_toast,
        size_bytes: row.size_bytes,
        is_system: row.is_system,
        is_temporary: row.is_temporary,
        due,
        reachable_age: reachable,
        blocked_by: holders.iter().filter(in_the_way).map(Holder::label).collect(),
        may_vacuum: row.may_vacuum,
        autovacuum_off: row.options.iter().any(|it| it == "autovacuum_enabled=false"),
        vacuum_running: row.vacuum_running,
    }
}

fn held(holder: &Holder) -> Held {
    Held { certain: holder.is_certain(), remedy: remedy(holder), holder: holder.clone() }
}

/// In the order in which they help: VACUUM is useless before the holders let go.
fn actions(seen: &Seen, output: &Output) -> Vec<String> {
    let mut actions = Vec::new();
    if seen.state.in_recovery {
        actions.push("this is a standby: act on its primary".to_owned());
    }
    let due: Vec<&AgedTable> = output.tables.iter().filter(|table| table.due).collect();
    for held in &output.horizon_holders {
        let label = held.holder.label();
        if due.iter().any(|table| table.blocked_by.contains(&label)) {
            let age = held.holder.xid_age;
            actions.push(format!("{label} holds {age} transactions back: {}", held.remedy));
        }
    }
    if !seen.state.autovacuum && output.level > Level::Normal {
        actions.push("switch autovacuum on: it comes by force only, and late".to_owned());
    }
    for table in &due {
        let AgedTable { table: name, is_temporary, vacuum_running, .. } = table;
        actions.push(match (is_temporary, vacuum_running, table.may_vacuum) {
            (true, ..) => format!("{name} is temporary: its session must drop it, or end"),
            (_, true, _) => format!("{name} is being vacuumed: let it finish"),
            (_, _, true) => format!("`vacuum {name}`: plain, not FULL and not FREEZE"),
            (_, _, false) => format!("{name} is somebody else's: its owner must `vacuum {name}`"),
        });
    }
    for database in output.databases.iter().filter(|it| !it.is_current && is_due(it, seen)) {
        actions.push(elsewhere(database, seen));
    }
    actions
}

fn is_due(database: &AgedDatabase, seen: &Seen) -> bool {
    database.xid_age > seen.state.failsafe_age.min(seen.state.freeze_max_age.saturating_mul(2))
        || database.multixact_age
            > seen
                .state
                .multixact_failsafe_age
                .min(seen.state.multixact_freeze_max_age.saturating_mul(2))
}

fn elsewhere(database: &AgedDatabase, seen: &Seen) -> String {
    let name = &database.database;
    let row = seen.databases.iter().find(|row| row.database_name == *name);
    if row.is_some_and(|row| row.may_connect) {
        return format!("look at database {name} in the same way: it is older than it should be");
    }
    format!("nobody of us can connect to database {name}, and it is older than it should be")
}

fn not_measured(seen: &Seen) -> Vec<NotMeasured> {
    let mut missing = Vec::new();
    if seen.member_files.is_none() {
        let what = NotMeasured::new("members of multixacts", "we may not list the files");
        missing.push(
            what.needs("grant execute on function pg_catalog.pg_ls_dir(text) to current_user"),
        );
    }
    if seen.before.is_none() {
        let why = "this is the first look at this server; the next one measures it";
        missing.push(NotMeasured::new("days until numbers run out", why));
    }
    let foreign: Vec<&str> = seen
        .tables
        .iter()
        .filter(|row| !row.may_vacuum && row.xid_age > seen.state.freeze_max_age)
        .map(|row| row.owner.as_str())
        .collect();
    if let Some(owner) = foreign.first() {
        let why = format!("{} old tables belong to others", foreign.len());
        let what = NotMeasured::new("what VACUUM would bring there", why);
        missing.push(what.needs(format!("grant {owner} to current_user")));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::analysis::vacuum::tests::holder;

    fn seen(extra: &Value) -> Seen {
        let state = json!({
            "next_xid": 900_000_000, "next_multixact": 1, "autovacuum": true,
            "freeze_max_age": 200_000_000, "multixact_freeze_max_age": 400_000_000,
            "failsafe_age": 1_600_000_000, "multixact_failsafe_age": 1_600_000_000,
            "in_recovery": false,
        });
        let databases = json!([
            { "database_name": "shop", "is_current": true, "may_connect": true,
              "xid_age": 700_000_000, "multixact_age": 5 },
            { "database_name": "template0", "is_current": false, "may_connect": false,
              "xid_age": 100_000_000, "multixact_age": 5 },
        ]);
        let mut row = json!({
            "table_name": "public.old", "is_system": false, "is_temporary": false, "owner": "app",
            "may_vacuum": true, "xid_age": 700_000_000, "multixact_age": 5, "in_toast": false,
            "size_bytes": 8192, "options": [], "vacuum_running": false,
        });
        for (name, value) in extra.as_object().unwrap() {
            row[name] = value.clone();
        }
        let fine = json!({
            "table_name": "public.fine", "is_system": false, "is_temporary": false, "owner": "app",
            "may_vacuum": true, "xid_age": 9, "multixact_age": 5, "in_toast": false,
            "size_bytes": 8192, "options": [], "vacuum_running": false,
        });
        Seen {
            state: serde_json::from_value(state).unwrap(),
            databases: serde_json::from_value(databases).unwrap(),
            tables: serde_json::from_value(json!([row, fine])).unwrap(),
            holders: Vec::new(),
            member_files: Some(3),
            before: None,
            sample: Sample {
                at: "2026-01-02T00:00:00.000Z".into(),
                server: "7".into(),
                next_xid: 900_000_000,
                next_multixact: 1,
            },
        }
    }

    fn judged(seen: &Seen) -> Output {
        let params = serde_json::from_value(json!({})).unwrap();
        judge(seen, &params, &Settings::default())
    }

    #[test]
    fn the_worst_database_gives_the_level() {
        let output = judged(&seen(&json!({})));
        assert_eq!(output.level, Level::Warning);
        assert_eq!(output.databases[1].level, Level::Normal);
        assert_eq!(output.vacuum, ["public.old"]);
        assert_eq!(output.actions, ["`vacuum public.old`: plain, not FULL and not FREEZE"]);
    }

    #[test]
    fn who_holds_comes_before_vacuum() {
        let mut old = seen(&json!({}));
        old.holders = vec![Holder { xid_age: 600_000_000, ..holder(Some(9.0)) }];
        let output = judged(&old);
        assert_eq!(output.tables[0].blocked_by, ["session 42"]);
        assert_eq!(output.tables[0].reachable_age, 600_000_000);
        assert!(output.actions[0].starts_with("session 42 holds 600000000"), "{output:?}");
        // Younger than the limit: VACUUM helps all the same.
        old.holders = vec![Holder { xid_age: 1_000, ..holder(Some(9.0)) }];
        assert!(judged(&old).tables[0].blocked_by.is_empty());
    }

    #[test]
    fn what_cannot_be_vacuumed_is_no_work_of_ours() {
        for extra in [
            json!({"is_temporary": true}),
            json!({"may_vacuum": false}),
            json!({"vacuum_running": true}),
        ] {
            let output = judged(&seen(&extra));
            assert!(output.vacuum.is_empty(), "{extra}");
            assert!(output.actions[0].contains("public.old"), "{extra}");
        }
    }

    #[test]
    fn the_pace_gives_the_days() {
        let mut paced = seen(&json!({}));
        paced.before = Some(Sample {
            at: "2026-01-01T00:00:00.000Z".into(),
            next_xid: 890_000_000,
            ..paced.sample.clone()
        });
        let output = judged(&paced);
        assert_eq!(output.days_to_forced_vacuum, Some(0.0));
        // (2^31 - 3 million - 700 million) / 10 million a day
        assert_eq!(output.days_to_stop, Some(144.448));
        assert!(output.not_measured.is_empty(), "{:?}", output.not_measured);
    }

    #[test]
    fn a_database_that_nobody_can_enter_counts() {
        let mut stale = seen(&json!({}));
        stale.databases[1].xid_age = 1_900_000_000;
        let output = judged(&stale);
        assert_eq!(output.level, Level::Critical);
        assert!(output.actions.last().unwrap().contains("template0"), "{:?}", output.actions);
    }

    #[test]
    fn history_rows_fit_their_table() {
        let rows = CheckTxidWraparoundRisk.history(&judged(&seen(&json!({}))));
        assert_eq!(rows.len(), 6);
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }
}
