//! Finds tables that need VACUUM by autovacuum's own formula, tables that only a rewrite makes smaller,
//! and what would make both useless.
//!
//! Reads: table statistics, autovacuum's settings, what holds old snapshots; with the extension
//! pgstattuple also pages of the tables that look most bloated.
//! Changes: nothing.
//! Undo: nothing to undo.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Bind, ByteSize, Failure, Ident, Query, Risk, Span, SqlFile};
use crate::sql_file;
use crate::tools::analysis::bloat::Bloat;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::analysis::number::{rounded, share};
use crate::tools::analysis::vacuum::{
    Holder, Reason, TableRow, bloat, blocked_by, fillfactor, is_switched_off, reasons,
};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};
use crate::tools::vacuum_state::{HOLDERS, SETTINGS, TABLES, VacuumState, look, parse_names};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(IdentifyTablesNeedingVacuum));

static EXTENSION: SqlFile = sql_file!("performance/identify_tables_needing_vacuum.pgstattuple");

/// How many tables are read page by page at most.
const MOST_CONFIRMED: usize = 5;

struct IdentifyTablesNeedingVacuum;

/// What counts as bloated.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Only these tables, as `schema.name`; they are listed even when nothing is wrong with them.
    #[serde(default)]
    tables: Option<Vec<String>>,
    /// The share of a table from which on a rewrite is worth it.
    #[serde(default = "four_tenths")]
    bloat_ratio: f64,
    /// The bytes from which on a rewrite is worth it.
    #[serde(default = "some_megabytes")]
    bloat_size: ByteSize,
    /// From which age on an open transaction makes vacuuming useless.
    #[serde(default = "one_minute")]
    old_after: Span,
    /// Whether estimates are confirmed by reading pages, where the extension pgstattuple is there.
    #[serde(default = "yes")]
    confirm: bool,
}

const fn four_tenths() -> f64 {
    0.4
}

const fn some_megabytes() -> ByteSize {
    ByteSize(64 << 20)
}

const fn one_minute() -> Span {
    Span::from_secs(60)
}

const fn yes() -> bool {
    true
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The tables with a finding, those with the most dead rows first.
    tables: Vec<Finding>,
    /// How many tables were looked at.
    checked: u64,
    /// How many of them are due for VACUUM or ANALYZE.
    due: u64,
    /// How many of them only a rewrite makes smaller.
    rewrite_candidates: u64,
    /// What keeps VACUUM from removing dead rows, the oldest first; younger ones than `old_after` too.
    horizon_holders: Vec<Holder>,
    /// Whether autovacuum is on.
    autovacuum: bool,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

/// One table.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_excessive_bools, reason = "rules ask each of them by itself")]
struct Finding {
    /// The table, quoted where it must be.
    table: String,
    /// What to do about it.
    verdict: Verdict,
    /// Whether it is due for VACUUM or ANALYZE.
    due: bool,
    /// Why it is due.
    reasons: Vec<Reason>,
    /// What would make VACUUM useless.
    blocked_by: Vec<String>,
    /// Live rows.
    live_rows: i64,
    /// Dead rows.
    dead_rows: i64,
    /// Dead rows as a share of all.
    dead_ratio: f64,
    /// Bytes with indexes and TOAST.
    size_bytes: u64,
    /// The share of the heap that a rewrite would give back; absent when it is not known.
    bloat_ratio: Option<f64>,
    /// Bytes that a rewrite would give back; absent when they are not known.
    bloat_bytes: Option<u64>,
    /// How the bloat is known.
    bloat_source: Source,
    /// Whether a rewrite is worth it.
    rewrite_candidate: bool,
    /// Whether autovacuum is switched off for this table.
    autovacuum_off: bool,
    /// Whether it is being vacuumed now.
    vacuum_running: bool,
    /// Whether we may vacuum it.
    may_vacuum: bool,
    /// The age of its oldest transaction.
    xid_age: Option<i64>,
    /// How long ago it was vacuumed.
    vacuumed_seconds: Option<f64>,
    /// How long ago it was analyzed.
    analyzed_seconds: Option<f64>,
}

/// What to do about a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// Nothing.
    Fine,
    /// A plain VACUUM (ANALYZE).
    Vacuum,
    /// First end what holds the old snapshot.
    Unblock,
    /// A rewrite; plain VACUUM only makes its empty space usable again.
    Rewrite,
}

/// How bloat is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Source {
    /// Estimated from statistics.
    Estimate,
    /// Measured by `pgstattuple_approx`.
    Pgstattuple,
    /// Not known.
    NotMeasured,
}

#[derive(Deserialize)]
struct Extension {
    schema_name: String,
    may_use: bool,
}

/// What `pgstattuple_approx` says about a heap.
#[derive(Clone, Copy, Deserialize)]
struct Pages {
    free_percent: f64,
    dead_percent: f64,
}

/// What reading pages brought, by table.
#[derive(Default)]
struct Confirmed {
    pages: BTreeMap<String, Pages>,
    not_measured: Vec<NotMeasured>,
}

impl ReadTool for IdentifyTablesNeedingVacuum {
    const META: ToolMeta = ToolMeta {
        name: "identify_tables_needing_vacuum",
        family: Family::Performance,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds tables that need VACUUM or a rewrite, and what would make it useless",
        sql: &[&TABLES, &SETTINGS, &HOLDERS, &EXTENSION],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        let names = params.tables.as_deref().map(parse_names).transpose()?;
        let state = look(cx, names.as_deref()).await?;
        let confirmed = if params.confirm {
            confirm(cx, &suspects(&state, &params)).await?
        } else {
            Confirmed::default()
        };
        Ok(judge(&state, confirmed, &params))
    }
}

/// The tables whose bloat is worth a look at their pages, the most bloated first.
fn suspects<'a>(state: &'a VacuumState, params: &Params) -> Vec<&'a TableRow> {
    let mut suspects: Vec<_> = state
        .tables
        .iter()
        .filter(|table| !table.locked)
        .filter_map(|table| Some((bloat(table)?, table)))
        .filter(|(bloat, _)| is_worth_it(*bloat, params))
        .collect();
    suspects.sort_by_key(|(bloat, _)| std::cmp::Reverse(bloat.bytes));
    suspects.into_iter().map(|(_, table)| table).take(MOST_CONFIRMED).collect()
}

async fn confirm(cx: &ReadContext<'_>, suspects: &[&TableRow]) -> Result<Confirmed, Failure> {
    let mut confirmed = Confirmed::default();
    if suspects.is_empty() {
        return Ok(confirmed);
    }
    let extensions: Vec<Extension> = cx.pg.rows(&EXTENSION, &[]).await?;
    let Some(extension) = extensions.first() else { return Ok(confirmed) };
    if !extension.may_use {
        let missing = NotMeasured::new("bloat by pgstattuple", "we may not use the extension");
        confirmed.not_measured.push(missing.needs("grant pg_stat_scan_tables to current_user"));
        return Ok(confirmed);
    }
    let text = format!(
        "select approx_free_percent as free_percent, dead_tuple_percent as dead_percent \
         from {}.pgstattuple_approx($1::text::pg_catalog.regclass)",
        Ident::new(&extension.schema_name)
    );
    for table in suspects {
        let name = &table.table_name;
        let query = Query::with_binds(text.clone(), vec![Bind::Text(name.clone())]);
        // A table that is too large to be read in time keeps its estimate.
        match cx.pg.query("pgstattuple_approx", &query).await {
            Ok(rows) => {
                let first = rows.into_iter().next();
                if let Some(pages) = first.and_then(|row| serde_json::from_value(row).ok()) {
                    confirmed.pages.insert(name.clone(), pages);
                }
            }
            Err(error) => {
                let what = format!("bloat of {name} by pgstattuple");
                confirmed.not_measured.push(NotMeasured::new(what, error.to_string()));
            }
        }
    }
    Ok(confirmed)
}

fn is_worth_it(bloat: Bloat, params: &Params) -> bool {
    bloat.ratio >= params.bloat_ratio && bloat.bytes >= params.bloat_size.0
}

fn judge(state: &VacuumState, confirmed: Confirmed, params: &Params) -> Output {
    let mut tables: Vec<_> =
        state.tables.iter().map(|table| finding(table, state, &confirmed, params)).collect();
    let checked = tables.len() as u64;
    let mut not_measured = confirmed.not_measured;
    if !state.settings.track_counts {
        let missing = NotMeasured::new("dead rows", "the server does not count rows");
        not_measured.push(missing.needs("alter system set track_counts = on"));
    }
    let unreadable = state.tables.iter().filter(|table| !table.may_read).count();
    if unreadable > 0 {
        let why = format!("column statistics of {unreadable} tables are hidden from us");
        let missing = NotMeasured::new("bloat", why);
        not_measured.push(missing.needs("grant pg_read_all_data to current_user"));
    }
    if params.tables.is_none() {
        tables.retain(|table| table.verdict != Verdict::Fine);
    }
    tables.sort_by_key(|table| std::cmp::Reverse(table.dead_rows));
    Output {
        checked,
        due: tables.iter().filter(|table| table.due).count() as u64,
        rewrite_candidates: tables.iter().filter(|table| table.rewrite_candidate).count() as u64,
        horizon_holders: state.holders.clone(),
        autovacuum: state.settings.autovacuum,
        not_measured,
        tables,
    }
}

fn finding(
    table: &TableRow,
    state: &VacuumState,
    confirmed: &Confirmed,
    params: &Params,
) -> Finding {
    let reasons = reasons(table, &state.settings);
    let blocking = blocked_by(table, &state.holders, params.old_after.0.as_secs_f64());
    let (bloat, bloat_source) = match (confirmed.pages.get(&table.table_name), bloat(table)) {
        (Some(pages), _) => (Some(measured(table, *pages)), Source::Pgstattuple),
        (None, Some(bloat)) => (Some(bloat), Source::Estimate),
        (None, None) => (None, Source::NotMeasured),
    };
    let rewrite_candidate = bloat.is_some_and(|bloat| is_worth_it(bloat, params));
    let (due, blocked) = (!reasons.is_empty(), !blocking.is_empty());
    let verdict = match (due || rewrite_candidate, blocked, due) {
        (false, ..) => Verdict::Fine,
        (true, true, _) => Verdict::Unblock,
        (true, false, true) => Verdict::Vacuum,
        (true, false, false) => Verdict::Rewrite,
    };
    let rows = |count: i64| u64::try_from(count).unwrap_or(0);
    let (live, dead) = (rows(table.live_rows), rows(table.dead_rows));
    Finding {
        table: table.table_name.clone(),
        verdict,
        due,
        reasons,
        blocked_by: blocking.iter().map(|holder| holder.label()).collect(),
        live_rows: table.live_rows,
        dead_rows: table.dead_rows,
        dead_ratio: rounded(share(dead, live.saturating_add(dead))),
        size_bytes: table.total_bytes,
        bloat_ratio: bloat.map(|bloat| bloat.ratio),
        bloat_bytes: bloat.map(|bloat| bloat.bytes),
        bloat_source,
        rewrite_candidate,
        autovacuum_off: is_switched_off(table),
        vacuum_running: table.vacuum_running,
        may_vacuum: table.may_vacuum,
        xid_age: table.xid_age,
        vacuumed_seconds: table.vacuumed_seconds.map(rounded),
        analyzed_seconds: table.analyzed_seconds.map(rounded),
    }
}

/// Free space and dead rows, less the room that the fillfactor leaves on purpose.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of the heap, between 0 and 1"
)]
fn measured(table: &TableRow, pages: Pages) -> Bloat {
    let wanted = 100.0 - fillfactor(table);
    let ratio = ((pages.free_percent + pages.dead_percent - wanted) / 100.0).clamp(0.0, 1.0);
    Bloat { bytes: (table.heap_bytes as f64 * ratio) as u64, ratio: rounded(ratio) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tools::analysis::vacuum::tests::{holder, settings, table};

    fn judged(tables: Vec<TableRow>, holders: Vec<Holder>, params: &Value) -> Output {
        let state = VacuumState { tables, settings: settings(), holders };
        let params = serde_json::from_value(params.clone()).unwrap();
        judge(&state, Confirmed::default(), &params)
    }

    fn named(name: &str, extra: &Value) -> TableRow {
        let mut table = table(extra);
        table.table_name = name.to_owned();
        table
    }

    #[test]
    fn each_table_gets_its_verdict() {
        let small = json!({"bloat_size": "1MB"});
        let dead = json!({"dead_rows": 33_334, "live_rows": 16_666});
        let output = judged(
            vec![
                named("public.fine", &json!({})),
                named("public.dead", &dead),
                named("public.empty_pages", &json!({"live_rows": 16_666})),
            ],
            Vec::new(),
            &small,
        );
        let verdicts: Vec<_> =
            output.tables.iter().map(|table| (table.table.as_str(), table.verdict)).collect();
        let expected = [("public.dead", Verdict::Vacuum), ("public.empty_pages", Verdict::Rewrite)];
        assert_eq!(verdicts, expected);
        assert_eq!((output.checked, output.due, output.rewrite_candidates), (3, 1, 2));
        let dead = &output.tables[0];
        assert!((dead.dead_ratio - 0.667).abs() < 1e-9);
        assert_eq!(dead.reasons, [Reason::DeadRows]);
        assert_eq!(dead.bloat_source, Source::Estimate);
    }

    #[test]
    fn a_holder_turns_vacuum_into_unblock() {
        let dead = json!({"dead_rows": 33_334, "vacuumed_seconds": null});
        let output = judged(vec![table(&dead)], vec![holder(Some(90.0))], &json!({}));
        assert_eq!(output.tables[0].verdict, Verdict::Unblock);
        assert_eq!(output.tables[0].blocked_by, ["session 42"]);
        assert_eq!(output.horizon_holders.len(), 1);
        let output = judged(vec![table(&dead)], vec![holder(Some(9.0))], &json!({}));
        assert_eq!(output.tables[0].verdict, Verdict::Vacuum);
    }

    #[test]
    fn named_tables_are_listed_even_when_fine() {
        let output = judged(vec![table(&json!({}))], Vec::new(), &json!({"tables": ["public.t"]}));
        assert_eq!(output.tables[0].verdict, Verdict::Fine);
    }

    #[test]
    fn measured_pages_beat_the_estimate() {
        let roomy = table(&json!({"options": ["fillfactor=70"]}));
        let pages = Pages { free_percent: 35.0, dead_percent: 5.0 };
        assert!((measured(&roomy, pages).ratio - 0.1).abs() < 1e-9);
        let state = VacuumState { tables: vec![roomy], settings: settings(), holders: Vec::new() };
        let pages = BTreeMap::from([("public.t".to_owned(), pages)]);
        let confirmed = Confirmed { pages, not_measured: Vec::new() };
        let params = serde_json::from_value(json!({"tables": ["public.t"]})).unwrap();
        let output = judge(&state, confirmed, &params);
        assert_eq!(output.tables[0].bloat_source, Source::Pgstattuple);
        assert_eq!(output.tables[0].bloat_ratio, Some(0.1));
    }

    #[test]
    fn what_is_hidden_is_said() {
        let blind = json!({"may_read": false, "width": null, "columns_known": 0});
        let mut state =
            VacuumState { tables: vec![table(&blind)], settings: settings(), holders: Vec::new() };
        state.settings.track_counts = false;
        let params = serde_json::from_value(json!({"tables": ["public.t"]})).unwrap();
        let output = judge(&state, Confirmed::default(), &params);
        assert_eq!(output.tables[0].bloat_ratio, None);
        assert_eq!(output.tables[0].bloat_source, Source::NotMeasured);
        let what: Vec<_> =
            output.not_measured.iter().map(|missing| missing.what.as_str()).collect();
        assert_eq!(what, ["dead rows", "bloat"]);
    }
}
