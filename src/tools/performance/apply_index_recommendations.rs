//! Follows advice about indexes: drops, builds or rebuilds them, one change for each, and measures what it
//! brought.
//!
//! Reads: the catalog of indexes, sizes of tables.
//! Changes: `drop index`, `create index` and `reindex index`, concurrently wherever the server can. What is
//! dropped is looked up again: the statement comes from the catalog, not from the advice.
//! Undo: what was dropped is built again, what was built is dropped.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Ident, Inverse, Operation, QualifiedName, Query, Recovery,
    Risk, SqlFile,
};
use crate::sql_file;
use crate::tools::analysis::index::IndexRow;
use crate::tools::analysis::recommendation::{Kind, Recommendation, Status, history_row};
use crate::tools::analysis::statement::read_statement;
use crate::tools::context::ReadContext;
use crate::tools::index_state::{INDEXES, has_effect, look};
use crate::tools::tool::{
    AnyTool, Ending, Family, HistoryRow, Settled, ToolMeta, Write, WriteTool,
};
use crate::tools::vacuum_state::{SIZE, budget};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(ApplyIndexRecommendations));

static GUARD: SqlFile = sql_file!("performance/apply_index_recommendations.guard");

struct ApplyIndexRecommendations;

/// Which advice.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The advice, as the detectors and `run_full_index_analysis` give it.
    recommendations: Vec<Recommendation>,
}

/// What following it brought.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// How many were followed.
    applied: u64,
    /// The advice, in the order in which it was followed.
    recommendations: Vec<Done>,
}

/// What became of one.
#[derive(Clone, Debug, Serialize, JsonSchema)]
struct Done {
    /// Its identity.
    fingerprint: String,
    /// What was advised.
    kind: Kind,
    /// The index, quoted where it must be.
    index: String,
    /// How its change ended; `moot` when the index is not what it was.
    ended: Ending,
    /// Bytes of the table with its indexes before.
    bytes_before: Option<u64>,
    /// The same after.
    bytes_after: Option<u64>,
    /// How long it took.
    duration_ms: Option<u64>,
    /// The advice, with the status that it has now.
    recommendation: Recommendation,
}

impl WriteTool for ApplyIndexRecommendations {
    const META: ToolMeta = ToolMeta {
        name: "apply_index_recommendations",
        family: Family::Performance,
        risk: Risk::Medium,
        revision: 1,
        summary: "Follows advice about indexes, and measures what it brought",
        sql: &[&INDEXES, &SIZE, &GUARD],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let indexes = look(cx).await?;
        let mut changes = Vec::new();
        for advice in &params.recommendations {
            if !advice.status.is_open() || has_effect_already(&indexes, advice) {
                continue;
            }
            let mut change = change(&indexes, advice)?;
            let sizes: Vec<Value> = cx.pg.rows(&SIZE, &[Bind::Text(table_of(advice))]).await?;
            let bytes = sizes.first().and_then(|size| size.get("total_bytes")?.as_u64());
            change.statement_timeout = Some(budget(cx, bytes.unwrap_or(advice.bytes)));
            changes.push(change);
        }
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let recommendations: Vec<Done> = settled.iter().filter_map(done).collect();
        let applied = recommendations.iter().filter(|done| done.ended == Ending::Applied);
        Output { applied: applied.count() as u64, recommendations }
    }

    fn history(&self, output: &Output) -> Vec<HistoryRow> {
        let applied = output.recommendations.iter().filter(|done| done.ended == Ending::Applied);
        applied.map(|done| history_row(&done.recommendation)).collect()
    }
}

/// A rebuilt index looks like the one before: only its bytes say that it was rebuilt.
fn has_effect_already(indexes: &[IndexRow], advice: &Recommendation) -> bool {
    advice.kind != Kind::ReindexBloated && has_effect(indexes, advice)
}

fn change(indexes: &[IndexRow], advice: &Recommendation) -> Result<Change, Failure> {
    match advice.kind {
        Kind::CreateFkIndex | Kind::CreateMissing => created(advice),
        Kind::ReindexBloated => {
            let index = find(indexes, advice)?;
            let text = format!("reindex index concurrently {}", index.qualified());
            Ok(of_index(index, advice, text, Inverse::Unneeded))
        }
        Kind::DropDuplicate | Kind::DropRedundant | Kind::DropUnused | Kind::DropInvalid => {
            let index = find(indexes, advice)?;
            if let Some(duty) = index.duty() {
                let text = format!("`{}` cannot be dropped by itself: {duty:?}", index.index_name);
                return Err(Failure::permanent("index::on_duty", text)
                    .with_help("look again: it has got a duty since the advice was given"));
            }
            let inverse = inverse(&index.create_statement(), index.is_partitioned);
            Ok(of_index(index, advice, index.drop_statement(), inverse))
        }
    }
}

fn find<'a>(indexes: &'a [IndexRow], advice: &Recommendation) -> Result<&'a IndexRow, Failure> {
    let named = |index: &&IndexRow| {
        index.schema_name == advice.schema && index.relation_name == advice.index
    };
    indexes.iter().find(named).ok_or_else(|| {
        let name = QualifiedName::new(&advice.schema, &advice.index).plain();
        Failure::permanent("index::gone", format!("there is no index `{name}`"))
    })
}

fn of_index(index: &IndexRow, advice: &Recommendation, text: String, inverse: Inverse) -> Change {
    let mut change = new_change(&index.index_name, advice, text, index.is_partitioned);
    let binds = vec![Bind::Text(index.index_name.clone()), Bind::Text(index.definition.clone())];
    change.guard = Some(Query::with_binds(GUARD.body(), binds));
    change.inverse = inverse;
    change
}

/// A new index: the statement is that of the advice, and must be nothing else.
fn created(advice: &Recommendation) -> Result<Change, Failure> {
    let refuse = |why: &str| {
        let text = format!("`{}` is refused: {why}", advice.statement);
        Failure::permanent("index::refused", text)
    };
    read_statement(&advice.statement).map_err(|error| refuse(&error.to_string()))?;
    let table = QualifiedName::new(&advice.schema, &advice.table);
    let name = Ident::new(&advice.index);
    let concurrently = if advice.blocks_writers { "" } else { "concurrently " };
    let expected = format!("create index {concurrently}{name} on {table} ");
    if !advice.statement.starts_with(&expected) {
        return Err(refuse(&format!("it should begin with `{expected}`")));
    }
    let index = QualifiedName::new(&advice.schema, &advice.index);
    let mut change =
        new_change(&index.plain(), advice, advice.statement.clone(), advice.blocks_writers);
    let undo = format!("drop index {concurrently}{index}");
    change.inverse = inverse(&undo, advice.blocks_writers);
    Ok(change)
}

fn new_change(object: &str, advice: &Recommendation, text: String, blocks: bool) -> Change {
    let (operation, recovery) = carried_out(text, blocks);
    // Whoever approves it reads what a branch has shown, or why none has.
    let told = advice.verification.as_ref().map(|seen| format!("{}; {}", advice.why, seen.told()));
    let mut change = Change::new(object, told.as_ref().unwrap_or(&advice.why), operation);
    change.recovery = recovery;
    change.risk = if blocks { Risk::High } else { Risk::Medium };
    change.measure = Some(Query::with_binds(SIZE.body(), vec![Bind::Text(table_of(advice))]));
    change.independent = true;
    change.facts = json!(advice);
    change
}

/// Indexes of partitioned tables are made and dropped in a transaction, all others outside.
fn carried_out(text: String, blocks: bool) -> (Operation, Recovery) {
    if blocks {
        (Operation::sql(text, Vec::new()), Recovery::Transactional)
    } else {
        (Operation::sql_outside_transaction(text), Recovery::Probe)
    }
}

fn inverse(text: &str, blocks: bool) -> Inverse {
    let (operation, recovery) = carried_out(text.to_owned(), blocks);
    Inverse::By { operation, recovery }
}

fn table_of(advice: &Recommendation) -> String {
    QualifiedName::new(&advice.schema, &advice.table).to_string()
}

fn done(settled: &Settled<'_>) -> Option<Done> {
    let mut advice = Recommendation::deserialize(&settled.change.facts).ok()?;
    let receipt = settled.receipt();
    let bytes = |values: &Value| values.get("total_bytes").and_then(Value::as_u64);
    if settled.ending() == Ending::Applied {
        advice.status = Status::Executed;
    }
    Some(Done {
        fingerprint: advice.fingerprint.clone(),
        kind: advice.kind,
        index: settled.change.object.clone(),
        ended: settled.ending(),
        bytes_before: receipt.and_then(|receipt| bytes(&receipt.before)),
        bytes_after: receipt.and_then(|receipt| bytes(&receipt.after)),
        duration_ms: receipt.and_then(|receipt| receipt.duration_ms),
        recommendation: advice,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Receipt, Settlement};
    use crate::tools::analysis::index::tests::index;
    use crate::tools::analysis::recommendation::tests::advice;

    #[test]
    fn what_is_dropped_is_looked_up_again() {
        let indexes = [index(&json!({}))];
        let forged = Recommendation { statement: "drop table public.t".into(), ..advice("a") };
        let change = change(&indexes, &forged).unwrap();
        let expected = "drop index concurrently \"public\".\"t_a_idx\"";
        assert_eq!(change.operation.to_string(), expected);
        assert_eq!((change.recovery, change.risk), (Recovery::Probe, Risk::Medium));
        assert!(change.guard.is_some() && change.independent);
        let Inverse::By { operation, .. } = &change.inverse else { panic!("{change:?}") };
        assert!(operation.to_string().starts_with("create index concurrently t_a_idx"));
        let on_duty = [index(&json!({"references_to": 1}))];
        assert_eq!(super::change(&on_duty, &advice("a")).unwrap_err().code, "index::on_duty");
        assert_eq!(super::change(&[], &advice("a")).unwrap_err().code, "index::gone");
    }

    #[test]
    fn a_new_index_is_nothing_else() {
        let new = |statement: &str| Recommendation {
            kind: Kind::CreateMissing,
            index: "t_b_idx".into(),
            statement: statement.into(),
            ..advice("b")
        };
        let right = "create index concurrently \"t_b_idx\" on \"public\".\"t\" (b)";
        let made = change(&[], &new(right)).unwrap();
        let Inverse::By { operation, .. } = &made.inverse else { panic!("{made:?}") };
        assert_eq!(operation.to_string(), "drop index concurrently \"public\".\"t_b_idx\"");
        for wrong in [
            "drop table public.t",
            "create index concurrently \"t_b_idx\" on \"public\".\"t\" (b); drop table x",
            "create index \"t_b_idx\" on \"public\".\"t\" (b)",
            "create index concurrently \"other\" on \"public\".\"t\" (b)",
        ] {
            assert_eq!(change(&[], &new(wrong)).unwrap_err().code, "index::refused", "{wrong}");
        }
    }

    #[test]
    fn what_was_followed_is_written_down() {
        let change = change(&[index(&json!({}))], &advice("a")).unwrap();
        let receipt = Receipt { before: json!({"total_bytes": 9}), ..Receipt::default() };
        let applied = Settlement::Applied { receipt };
        let moot = Settlement::Moot;
        let output = ApplyIndexRecommendations.report(&[
            Settled { change: &change, settlement: Some(&applied) },
            Settled { change: &change, settlement: Some(&moot) },
        ]);
        assert_eq!((output.applied, output.recommendations[0].bytes_before), (1, Some(9)));
        let rows = ApplyIndexRecommendations.history(&output);
        assert_eq!((rows.len(), &rows[0].row["status"]), (1, &json!("executed")));
        assert_eq!(rows.iter().try_for_each(crate::history::check), Ok(()));
    }
}
