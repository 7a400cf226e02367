//! Detaches partitions that end before a moment and are empty, as they are once their rows are in the archive.
//!
//! Reads: partitions by range of the column that says when, and whether they are empty.
//! Changes: one transaction for each: locks the partition, makes sure that it is empty, detaches it. The empty
//! table stays, under its name; who is sure drops it.
//! Undo: it is attached again with the bounds that it had. Restore archived rows only then: they go where they
//! came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::kernel::{
    Bind, Change, ChangeSet, Failure, Inverse, Operation, QualifiedName, Query, Recovery, Risk,
    SqlFile, SqlStatement, Timestamp,
};
use crate::sql_file;
use crate::tools::branching::lifecycle::is_done;
use crate::tools::cold::{COLUMNS, ColdTable, REFERENCES, literal};
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Settled, ToolMeta, Write, WriteTool};

pub(super) static TOOL: AnyTool = AnyTool::Write(&Write(DetachColdPartitions));

static PARTITIONS: SqlFile = sql_file!("health/detach_cold_partitions");

struct DetachColdPartitions;

/// Which partitions.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The partitioned table, as `schema.name`.
    table: String,
    /// The column that says when, which it is partitioned by.
    column: String,
    /// Partitions that end by then are cold.
    cut_off: Timestamp,
}

/// What became of them.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The partitions that were detached now.
    detached: Vec<String>,
    /// Those that were not: a row came in between, or the step ended before.
    not_detached: Vec<String>,
}

/// A partition as the server describes it.
#[derive(Deserialize)]
struct Found {
    partition: String,
    partition_schema: String,
    partition_name: String,
    bound: String,
}

impl WriteTool for DetachColdPartitions {
    const META: ToolMeta = ToolMeta {
        name: "detach_cold_partitions",
        family: Family::Health,
        risk: Risk::Medium,
        revision: 1,
        summary: "Detaches empty partitions of what is old, as archiving leaves them",
        sql: &[&COLUMNS, &REFERENCES, &PARTITIONS],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn propose(&self, cx: &ReadContext<'_>, params: Params) -> Result<ChangeSet, Failure> {
        let table = ColdTable::look(cx, &params.table).await?;
        let binds = [
            Bind::Text(table.name.to_string()),
            Bind::Text(params.column),
            Bind::Timestamp(params.cut_off),
        ];
        let found: Vec<Found> = cx.pg.rows(&PARTITIONS, &binds).await?;
        let mut changes = Vec::new();
        for partition in found {
            let name = QualifiedName::new(&partition.partition_schema, &partition.partition_name);
            let text = format!("select not exists (select from {name}) as holds");
            let answer = cx.pg.query("whether a partition is empty", &Query::new(text)).await?;
            if answer.first().is_some_and(|row| row["holds"] == true) {
                changes.push(detach(&table, &name, &partition));
            }
        }
        Ok(ChangeSet::new(changes))
    }

    fn report(&self, settled: &[Settled<'_>]) -> Output {
        let name = |one: &Settled<'_>| one.change.facts["partition"].as_str().map(str::to_owned);
        let (done, not): (Vec<_>, Vec<_>) = settled.iter().partition(|one| is_done(one));
        Output {
            detached: done.into_iter().filter_map(name).collect(),
            not_detached: not.into_iter().filter_map(name).collect(),
        }
    }
}

fn detach(table: &ColdTable, name: &QualifiedName, partition: &Found) -> Change {
    let parent = &table.name;
    // A row that came in before the lock was there stops it: nothing is detached with rows in it.
    let check = format!(
        "begin if exists (select from {name}) then raise exception 'a row came into % meanwhile', {shown}; \
         end if; end",
        shown = literal(&name.plain())
    );
    let statements = vec![
        SqlStatement::new(format!("lock table {name} in access exclusive mode")),
        SqlStatement::new(format!("do {}", literal(&check))),
        SqlStatement::new(format!("alter table {parent} detach partition {name}")),
    ];
    let why = format!("it is empty and ends before the cut-off ({})", partition.bound);
    let operation = Operation::Transaction { statements };
    let mut change = Change::new(format!("partition {}", name.plain()), why, operation);
    change.risk = Risk::Medium;
    change.recovery = Recovery::Transactional;
    change.independent = true;
    // Nobody else has detached it.
    change.guard = Some(Query::with_binds(
        "select exists (select from pg_catalog.pg_inherits as i \
         where i.inhrelid = pg_catalog.to_regclass($1::text) \
         and i.inhparent = pg_catalog.to_regclass($2::text)) as holds",
        vec![Bind::Text(name.to_string()), Bind::Text(parent.to_string())],
    ));
    let attach = format!("alter table {parent} attach partition {name} {}", partition.bound);
    change.inverse = Inverse::By {
        operation: Operation::sql(attach, Vec::new()),
        recovery: Recovery::Transactional,
    };
    change.facts = json!({ "partition": partition.partition });
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::cold::orders;

    #[test]
    fn a_partition_is_looked_at_under_its_lock_and_comes_back_as_it_was() {
        let bound = "FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')";
        let partition = Found {
            partition: "public.\"p'1\"".into(),
            partition_schema: "public".into(),
            partition_name: "p'1".into(),
            bound: bound.into(),
        };
        let name = QualifiedName::new("public", "p'1");
        let change = detach(&orders(), &name, &partition);
        let texts: Vec<_> =
            change.operation.statements().iter().map(|one| one.text.as_str()).collect();
        assert_eq!(texts[0], "lock table \"public\".\"p'1\" in access exclusive mode");
        assert!(
            texts[1].starts_with("do 'begin if exists (select from \"public\".\"p''1\")"),
            "{texts:?}"
        );
        assert!(texts[2].ends_with("detach partition \"public\".\"p'1\""), "{texts:?}");
        let Inverse::By { operation, .. } = &change.inverse else { panic!() };
        assert!(operation.to_string().ends_with(&format!("attach partition {name} {bound}")));
    }
}
