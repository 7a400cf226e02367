//! Whether a statement that a model wrote may be run: one SELECT without effects. PURE.
//!
//! What is not known to be harmless is refused. Functions are allowed by name, so that neither
//! `pg_terminate_backend` nor a function of somebody's own is ever called, and what is run is the statement as
//! it was understood, written anew, not the text that came.

use std::ops::ControlFlow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlparser::ast::{
    BinaryOperator, DataType, Expr, ObjectName, Query, SetExpr, Statement, TableFactor,
    Value as Literal, ValueWithSpan, Visit as _, Visitor,
};

use crate::tools::analysis::reading::{Effect, effect, one_statement};

/// Longer statements are not looked at.
const LONGEST: usize = 10_000;
/// How deep a statement may nest.
const DEEPEST: usize = 30;

/// Why a statement is not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It is no SQL, too long, or more than one statement.
    #[error("it is not one statement that can be parsed")]
    NotOneStatement,
    /// It is something else than a SELECT, or part of it is.
    #[error("it does more than read")]
    NotReadOnly,
    /// It takes locks.
    #[error("it takes locks")]
    Locks,
    /// It calls a function that is not known to be harmless.
    #[error("it calls `{0}`, which is not known to be harmless")]
    Function(String),
    /// It reads where secrets stand.
    #[error("it reads `{0}`, where secrets stand")]
    Secrets(String),
    /// It has parts whose effects are not known.
    #[error("it has a part whose effects are not known: {0}")]
    Unknown(String),
}

/// Functions without effects: they look at their arguments, or at how large and how old things are.
const HARMLESS: &str = "abs age array_agg array_length array_to_string avg bit_length bool_and bool_or btrim \
    cardinality ceil ceiling char_length coalesce col_description concat concat_ws count cume_dist \
    current_catalog current_database current_date current_role current_schema current_time \
    current_timestamp current_user date_part date_trunc dense_rank every extract first_value floor \
    format_type generate_series greatest jsonb_agg jsonb_array_length jsonb_build_object json_agg \
    json_build_object lag last_value lead least left length ln localtime localtimestamp log lower lpad \
    ltrim make_interval max md5 min mod mode nth_value ntile nullif now obj_description octet_length \
    percent_rank percentile_cont percentile_disc pg_blocking_pids pg_column_size pg_database_size \
    pg_get_constraintdef pg_get_expr pg_get_indexdef pg_indexes_size pg_postmaster_start_time \
    pg_relation_size pg_size_pretty pg_table_size pg_tablespace_size pg_total_relation_size \
    pg_wal_lsn_diff power quote_ident rank regexp_count regexp_replace repeat replace reverse right \
    round row_number row_to_json rpad rtrim session_user sign split_part sqrt stddev stddev_pop \
    stddev_samp string_agg strpos substr substring sum to_char to_json to_jsonb to_timestamp trim trunc \
    unnest upper user variance var_pop var_samp version width_bucket";

/// Relations of the catalogue in which passwords and the like stand.
const SECRET: &[&str] = &[
    "pg_authid",
    "pg_file_settings",
    "pg_foreign_server",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_largeobject",
    "pg_shadow",
    "pg_subscription",
    "pg_user_mapping",
    "pg_user_mappings",
    "user_mapping_options",
];

/// The statement, written anew, or why it is not run.
pub fn harmless(text: &str) -> Result<String, Refusal> {
    if text.len() > LONGEST {
        return Err(Refusal::NotOneStatement);
    }
    let statement = one_statement(text, DEEPEST).ok_or(Refusal::NotOneStatement)?;
    let Statement::Query(query) = &statement else { return Err(Refusal::NotReadOnly) };
    match effect(query) {
        Some(Effect::Writes) => return Err(Refusal::NotReadOnly),
        Some(Effect::Locks) => return Err(Refusal::Locks),
        None => {}
    }
    match query.visit(&mut Guard) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(query.to_string()),
    }
}

/// What is refused of a query that has no effects by its form.
struct Guard;

fn refuse<T>(refusal: Refusal) -> ControlFlow<Refusal, T> {
    ControlFlow::Break(refusal)
}

fn unknown<T>(what: impl std::fmt::Display) -> ControlFlow<Refusal, T> {
    refuse(Refusal::Unknown(what.to_string()))
}

impl Visitor for Guard {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        let is_foreign = query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty();
        if is_foreign {
            return unknown("a clause that is not PostgreSQL's");
        }
        body(&query.body)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Refusal> {
        let name = last(relation);
        if SECRET.contains(&name.as_str()) {
            return refuse(Refusal::Secrets(name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Refusal> {
        match factor {
            TableFactor::Table { args: None, .. }
            | TableFactor::Derived { .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => {
                function(name)
            }
            other => unknown(other),
        }
    }

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<Refusal> {
        match expression {
            Expr::Function(called) => function(&called.name),
            Expr::BinaryOp { op: BinaryOperator::PGCustomBinaryOperator(_), .. } => {
                unknown("an operator of somebody's own")
            }
            Expr::Cast { data_type, .. }
            | Expr::TypedString(sqlparser::ast::TypedString { data_type, .. }) => {
                known_type(data_type)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<Refusal> {
        match &value.value {
            Literal::Placeholder(_) => unknown("a placeholder without a value"),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Parts of a query that are no queries themselves.
fn body(part: &SetExpr) -> ControlFlow<Refusal> {
    match part {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, right, .. } => {
            body(left)?;
            body(right)
        }
        _ => refuse(Refusal::NotReadOnly),
    }
}

fn function(name: &ObjectName) -> ControlFlow<Refusal> {
    let is_ours = match name.0.as_slice() {
        [_] => true,
        [schema, _] => plain(&schema.to_string()) == "pg_catalog",
        _ => false,
    };
    let called = last(name);
    if is_ours && HARMLESS.split_whitespace().any(|known| known == called) {
        return ControlFlow::Continue(());
    }
    refuse(Refusal::Function(name.to_string()))
}

fn known_type(data_type: &DataType) -> ControlFlow<Refusal> {
    match data_type {
        DataType::Custom(name, _) => {
            let known =
                ["name", "oid", "regclass", "regnamespace", "regrole", "regtype", "xid", "xid8"];
            let is_known = known.contains(&last(name).as_str());
            if is_known { ControlFlow::Continue(()) } else { unknown(format!("the type {name}")) }
        }
        _ => ControlFlow::Continue(()),
    }
}

/// The last part of a name, without quotes and in small letters.
fn last(name: &ObjectName) -> String {
    name.0.last().map(|part| plain(&part.to_string())).unwrap_or_default()
}

fn plain(part: &str) -> String {
    part.trim_matches('"').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_may_run() {
        for text in [
            "select count(*) from s.orders",
            "select relname, pg_size_pretty(pg_total_relation_size(oid)) from pg_class order by 2 desc limit 5;",
            "with t as (select * from pg_stat_user_tables) select relname, n_dead_tup::numeric / \
             greatest(n_live_tup, 1) from t where last_vacuum < now() - interval '1 day'",
            "select state, count(*) from pg_catalog.pg_stat_activity group by state union all \
             select 'x', 1 order by 2",
            "select g from generate_series(1, 3) as g",
            "select 'orders'::regclass, extract(epoch from now()), coalesce(null, 1)",
            "select a.pid, b.pid from pg_locks a join pg_locks b using (pid) where exists (select 1)",
        ] {
            assert!(harmless(text).is_ok(), "{text}: {:?}", harmless(text));
        }
    }

    #[test]
    fn what_acts_may_not() {
        for (text, part) in [
            ("drop table s.orders", "more than read"),
            ("delete from s.orders", "more than read"),
            ("select 1; select 2", "one statement"),
            ("select 1; drop table s.orders", "one statement"),
            ("you should add an index", "one statement"),
            ("", "one statement"),
            ("explain analyze delete from s.orders", "more than read"),
            ("with x as (delete from s.orders returning *) select * from x", "more than read"),
            ("with x as (insert into t values (1) returning *) select 1", "more than read"),
            ("with x as (update t set a = 1 returning *) select 1", "more than read"),
            ("select * into stolen from s.orders", "more than read"),
            ("select * from s.orders for update", "locks"),
            ("select * from (select * from s.orders for share) q", "locks"),
            ("select pg_terminate_backend(1)", "pg_terminate_backend"),
            ("select pg_catalog.pg_terminate_backend(1)", "pg_terminate_backend"),
            ("select \"pg_terminate_backend\"(pid) from pg_stat_activity", "pg_terminate_backend"),
            ("select count(*) from s.orders where pg_sleep(60) is null", "pg_sleep"),
            ("select * from pg_read_file('/etc/passwd')", "pg_read_file"),
            ("select * from pg_ls_dir('.') as f", "pg_ls_dir"),
            ("select lo_import('/etc/passwd')", "lo_import"),
            ("select dblink_exec('x', 'drop table t')", "dblink_exec"),
            ("select query_to_xml('delete from t', true, true, '')", "query_to_xml"),
            ("select set_config('role', 'postgres', false)", "set_config"),
            ("select nextval('s')", "nextval"),
            ("select pg_advisory_lock(1)", "pg_advisory_lock"),
            ("select count(*) from t order by mine.harm(1)", "mine.harm"),
            ("select s.count(1)", "s.count"),
            ("select (select pg_reload_conf())", "pg_reload_conf"),
            ("select case when true then pg_switch_wal() end", "pg_switch_wal"),
            ("select sum(x) filter (where pg_cancel_backend(1)) from t", "pg_cancel_backend"),
            ("select sum(x) over (order by pg_cancel_backend(1)) from t", "pg_cancel_backend"),
            ("select 1 from t join u on pg_cancel_backend(1)", "pg_cancel_backend"),
            ("select 1 limit (select pg_cancel_backend(1)::int)", "pg_cancel_backend"),
            ("values (pg_cancel_backend(1))", "pg_cancel_backend"),
            ("select rolpassword from pg_authid", "pg_authid"),
            ("select * from pg_catalog.\"pg_shadow\"", "pg_shadow"),
            ("select * from s.orders where id = $1", "placeholder"),
            ("select 1 operator(mine.+) 2", ""),
            ("select 'x'::mine.harmful", "mine.harmful"),
            ("table s.orders", ""),
            ("copy s.orders to program 'sh'", ""),
            ("set role postgres", ""),
            ("do $$ begin end $$", ""),
            ("call harm()", ""),
            ("vacuum full", ""),
        ] {
            let refusal = harmless(text).expect_err(text).to_string();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
        let deep = format!("select {}1{}", "(".repeat(200), ")".repeat(200));
        assert_eq!(harmless(&deep), Err(Refusal::NotOneStatement));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(select|with|from|\\(|\\)|pg_sleep|'|\"|[a-z0-9 ,;*$]){0,40}") {
            drop(harmless(&text));
        }

        #[test]
        fn no_unknown_function_is_ever_called(name in "[a-z_]{3,20}") {
            let known = HARMLESS.split_whitespace().any(|known| known == name);
            if let Ok(written) = harmless(&format!("select x, {name}(1) from t")) {
                // Some names are no calls: `exists (1)`, `not (1)`.
                let call = format!("{name}(");
                proptest::prop_assert!(known || !written.contains(&call));
            }
        }
    }
}
