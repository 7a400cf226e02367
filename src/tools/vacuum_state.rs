//! What the vacuum tools look at before they judge or propose.

use crate::kernel::{Bind, Failure, QualifiedName, Span, SqlFile};
use crate::sql_file;

use super::analysis::vacuum::{AutovacuumSettings, Holder, TableRow, blocked_by};
use super::context::ReadContext;

/// All tables, or some.
pub(super) static TABLES: SqlFile = sql_file!("shared/vacuum_tables");
/// When autovacuum comes.
pub(super) static SETTINGS: SqlFile = sql_file!("shared/autovacuum_settings");
/// What keeps VACUUM from removing dead rows.
pub(super) static HOLDERS: SqlFile = sql_file!("shared/horizon_holders");
/// The size of one table, for before and after.
pub(super) static SIZE: SqlFile = sql_file!("shared/table_size");

/// What was seen.
pub(super) struct VacuumState {
    pub(super) tables: Vec<TableRow>,
    pub(super) settings: AutovacuumSettings,
    pub(super) holders: Vec<Holder>,
}

/// Looks at all tables outside the system schemas, or at those that are named.
pub(super) async fn look(
    cx: &ReadContext<'_>,
    names: Option<&[QualifiedName]>,
) -> Result<VacuumState, Failure> {
    let wanted = match names {
        None => Bind::Null,
        Some(names) => Bind::TextArray(names.iter().map(ToString::to_string).collect()),
    };
    let tables: Vec<TableRow> = cx.pg.rows(&TABLES, &[wanted]).await?;
    if let Some(names) = names {
        all_found(names, &tables)?;
    }
    let settings = cx.pg.row(&SETTINGS, &[]).await?;
    let holders = cx.pg.rows(&HOLDERS, &[]).await?;
    Ok(VacuumState { tables, settings, holders })
}

fn all_found(names: &[QualifiedName], tables: &[TableRow]) -> Result<(), Failure> {
    let known: Vec<_> = tables.iter().map(TableRow::qualified).collect();
    match names.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Failure::permanent(
            "vacuum::no_such_table",
            format!("there is no table or materialized view `{}`", name.plain()),
        )
        .with_help("of a partitioned table, name the partitions")),
    }
}

/// Reads the names of tables.
pub(super) fn parse_names(texts: &[String]) -> Result<Vec<QualifiedName>, Failure> {
    let parse = |text: &String| {
        QualifiedName::parse(text)
            .map_err(|error| Failure::permanent("vacuum::bad_name", error.to_string()))
    };
    texts.iter().map(parse).collect()
}

/// Refuses a table that we may not vacuum: the server would only warn, and skip it.
pub(super) fn permitted(table: &TableRow, version_num: u32) -> Result<(), Failure> {
    if table.may_vacuum {
        return Ok(());
    }
    let TableRow { table_name, owner, .. } = table;
    let help = if version_num >= 170_000 {
        format!("`grant maintain on {table_name} to current_user`, or become a member of `{owner}`")
    } else {
        format!("only its owner may: `grant {owner} to current_user`")
    };
    let message = format!("we may not vacuum `{table_name}`");
    Err(Failure::permanent("vacuum::not_permitted", message).with_help(help))
}

/// Refuses a table whose dead rows VACUUM could not remove.
pub(super) fn useful(table: &TableRow, holders: &[Holder], old_after: Span) -> Result<(), Failure> {
    let blocking = blocked_by(table, holders, old_after.0.as_secs_f64());
    if blocking.is_empty() {
        return Ok(());
    }
    let who = blocking.iter().map(|holder| holder.label()).collect::<Vec<_>>().join(", ");
    let message = format!(
        "VACUUM of `{}` would remove nothing: {who} may still see its dead rows",
        table.table_name
    );
    Err(Failure::permanent("vacuum::useless", message).with_help(
        "end what holds the old snapshot first (`terminate_idle_connections`), or say \
         `even_if_blocked: true`",
    ))
}

/// The time that maintenance of so many bytes may take.
pub(super) fn budget(cx: &ReadContext<'_>, bytes: u64) -> Span {
    let limits = &cx.settings.limits;
    budget_of(limits.maintenance_per_gib, limits.maintenance_floor, bytes)
}

#[expect(clippy::cast_precision_loss, reason = "a time limit needs no exact bytes")]
fn budget_of(per_gib: Span, floor: Span, bytes: u64) -> Span {
    let gib = bytes as f64 / f64::from(1 << 30);
    let wanted = std::time::Duration::try_from_secs_f64(per_gib.0.as_secs_f64() * gib);
    // Whole seconds: the text of a plan is the same for a table that grew by a page.
    wanted.map_or(floor, |wanted| Span::from_secs(wanted.as_secs())).max(floor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::analysis::vacuum::tests::{holder, table};
    use super::*;

    #[test]
    fn the_budget_grows_with_the_table() {
        let (per_gib, floor) = (Span::from_secs(600), Span::from_secs(60));
        assert_eq!(budget_of(per_gib, floor, 8192), floor);
        assert_eq!(budget_of(per_gib, floor, 3 << 30), Span::from_secs(1800));
        assert_eq!(budget_of(Span(std::time::Duration::MAX), floor, u64::MAX), floor);
    }

    #[test]
    fn a_missing_privilege_comes_with_its_grant() {
        let foreign = table(&json!({"may_vacuum": false}));
        let help = |version| permitted(&foreign, version).unwrap_err().help.unwrap();
        assert!(help(170_000).contains("grant maintain on public.t"));
        assert!(help(160_000).contains("grant app to"));
        assert!(permitted(&table(&json!({})), 160_000).is_ok());
    }

    #[test]
    fn useless_work_names_who_is_in_the_way() {
        let dead = table(&json!({"dead_rows": 5, "vacuumed_seconds": null}));
        let error = useful(&dead, &[holder(Some(100.0))], Span::from_secs(60)).unwrap_err();
        assert!(error.message.contains("session 42"), "{error}");
        assert!(useful(&dead, &[holder(Some(10.0))], Span::from_secs(60)).is_ok());
    }

    #[test]
    fn names_that_are_not_there_are_refused() {
        let names = parse_names(&["public.t".into(), "public.gone".into()]).unwrap();
        let error = all_found(&names, &[table(&json!({}))]).unwrap_err();
        assert!(error.message.contains("public.gone"));
        assert!(parse_names(&["t".into()]).is_err());
    }
}
