//! The recorded workload: the statements of `pg_stat_statements` that cost the most, and their generic plans.

use crate::kernel::{Bind, Failure, SqlFile};
use crate::sql_file;

use super::analysis::missing::NotMeasured;
use super::analysis::missing_index::{Known, Statement, Table};
use super::analysis::plan_tree::Node;
use super::analysis::text::shorten;
use super::analysis::workload::{explainable, plannable};
use super::context::ReadContext;
use super::index_state;
use super::statements_state::{INFO, Info, Statements};

/// The statements that cost the most.
pub(super) static WORKLOAD: SqlFile = sql_file!("shared/workload");
/// The tables that are large enough for an index to matter.
pub(super) static TABLES: SqlFile = sql_file!("shared/large_tables");
/// What the planner knows of their columns.
pub(super) static COLUMNS: SqlFile = sql_file!("shared/column_statistics");

/// The first version that plans a statement without its values.
const GENERIC_PLANS: u32 = 160_000;

/// What is not measured when statements have no plan.
pub(super) const PLANS: &str = "plans of statements";

/// SQLSTATE of a missing privilege.
const NO_PRIVILEGE: &str = "42501";

/// The workload, and what could not be seen of it.
#[derive(Default)]
pub(super) struct Workload {
    pub(super) statements: Vec<Statement>,
    /// The plan of each, in the same order.
    pub(super) plans: Vec<Option<Node>>,
    /// What the extension says about itself; absent without it.
    pub(super) info: Option<Info>,
    pub(super) not_measured: Vec<NotMeasured>,
}

/// The statements of this database that cost the most time, at most so many, with their plans.
pub(super) async fn look(
    cx: &ReadContext<'_>,
    most: u32,
    min_calls: u32,
) -> Result<Workload, Failure> {
    let mut workload = Workload::default();
    let extension = match Statements::find(cx).await? {
        Ok(extension) => extension,
        Err(missing) => {
            workload.not_measured.push(missing);
            return Ok(workload);
        }
    };
    workload.info = extension.rows(cx, &INFO, Vec::new()).await?.into_iter().next();
    if let Some(info) = workload.info.as_ref().filter(|info| info.hidden > 0) {
        let why = format!("{} statements of others are hidden from us", info.hidden);
        let what = NotMeasured::new("statements of other users", why);
        workload.not_measured.push(what.needs("grant pg_read_all_stats to current_user"));
    }
    let binds = vec![Bind::Int(most.into()), Bind::Int(min_calls.into())];
    workload.statements = extension.rows(cx, &WORKLOAD, binds).await?;
    workload.statements.retain(|it| explainable(&it.query));
    if cx.pg.server().await?.version_num < GENERIC_PLANS {
        let why = "PostgreSQL plans a statement without its values from 16 on";
        workload.not_measured.push(NotMeasured::new(PLANS, why));
        workload.plans = vec![None; workload.statements.len()];
        return Ok(workload);
    }
    explain(cx, &mut workload).await;
    Ok(workload)
}

/// What is known of the tables with so many rows.
pub(super) async fn known(cx: &ReadContext<'_>, min_rows: u64) -> Result<Known, Failure> {
    #[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
    let least = Bind::Float(min_rows as f64);
    let tables: Vec<Table> = cx.pg.rows(&TABLES, &[least]).await?;
    let oids = Bind::IntArray(tables.iter().map(|table| table.oid).collect());
    let columns = cx.pg.rows(&COLUMNS, &[oids]).await?;
    Ok(Known { tables, columns, indexes: index_state::look(cx).await? })
}

/// Asks for the plan of each statement. What cannot be planned is counted, by its reason.
async fn explain(cx: &ReadContext<'_>, workload: &mut Workload) {
    let (mut forbidden, mut failed) = (0_u32, 0_u32);
    let mut why = String::new();
    for statement in &workload.statements {
        let plan = match cx.pg.generic_plan("explain", &plannable(&statement.query)).await {
            Ok(answer) => Node::of_answer(&answer),
            Err(error) if error.sqlstate() == Some(NO_PRIVILEGE) => {
                forbidden += 1;
                None
            }
            Err(error) => {
                failed += 1;
                why = shorten(&error.to_string());
                None
            }
        };
        workload.plans.push(plan);
    }
    if forbidden > 0 {
        let why = format!("we may not read the tables of {forbidden} statements");
        let what = NotMeasured::new(PLANS, why);
        workload.not_measured.push(what.needs("grant pg_read_all_data to current_user"));
    }
    if failed > 0 {
        let why = format!("{failed} statements cannot be planned without values, such as: {why}");
        workload.not_measured.push(NotMeasured::new(PLANS, why));
    }
}
