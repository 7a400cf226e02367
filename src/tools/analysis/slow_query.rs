//! What is wrong with a statement, read from its generic plan, its text and its counters: rules with names,
//! each with the numbers that it saw. PURE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::missing_index::{Known, PassedOver, Statement, asked, candidates};
use super::number::rounded;
use super::plan_tree::Node;

/// Estimates that miss by more than this mislead the planner.
const MISESTIMATE: f64 = 100.0;

/// Fewer rows than this are handled quickly whatever the plan.
const MANY_ROWS: f64 = 10_000.0;

/// Temporary pages of a call from which on a sort or a hash does not fit into memory.
const SPILL_BLOCKS: f64 = 1.0;

/// What is wrong.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// A large table is read from end to end for few rows.
    MissingIndex,
    /// A function, a cast or arithmetic stands around a column, so no index on it serves.
    WrappedColumn,
    /// A pattern begins with a wildcard.
    LeadingWildcard,
    /// Alternatives that no single index answers.
    Alternatives,
    /// For each row of one input the other is read again, without an index.
    NestedScan,
    /// Two inputs are joined without a condition.
    CrossJoin,
    /// Many rows are sorted.
    LargeSort,
    /// Rows are skipped by OFFSET: all before are read.
    DeepOffset,
    /// A sort or a hash writes temporary files.
    Spill,
    /// The planner expects other row counts than come.
    Misestimate,
    /// It returns many rows to the client.
    ManyRows,
    /// Each call is quick; there are very many.
    ManyCalls,
}

impl Fault {
    /// What helps, for people.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::MissingIndex => "build the index that `detect_missing_indexes` names",
            Self::WrappedColumn => {
                "compare the bare column with a computed value, or index the same expression"
            }
            Self::LeadingWildcard => {
                "search by trigrams (`pg_trgm`, a GIN index), or by text search"
            }
            Self::Alternatives => "write `union all` of two statements that an index answers each",
            Self::NestedScan => "index the column by which the inner table is joined",
            Self::CrossJoin => "add the join condition that is missing, if it is missing",
            Self::LargeSort => "read in the order of an index, or sort fewer rows",
            Self::DeepOffset => "go on after the last key seen (`where key > …`), not by OFFSET",
            Self::Spill => "raise `work_mem` for the role that runs it, or handle fewer rows",
            Self::Misestimate => {
                "analyze the tables; for columns that belong together, `create statistics`"
            }
            Self::ManyRows => "fetch what is needed: fewer rows, or by keyset pages",
            Self::ManyCalls => "ask once for many (`= any($1)`), or cache what does not change",
        }
    }
}

/// One thing that is wrong with a statement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// What.
    pub fault: Fault,
    /// The table or the node that it is about.
    pub object: Option<String>,
    /// The numbers and conditions that say so.
    pub evidence: String,
    /// What helps.
    pub advice: String,
}

impl Finding {
    fn new(fault: Fault, object: Option<String>, evidence: String) -> Self {
        Self { fault, object, evidence, advice: fault.advice().to_owned() }
    }
}

/// Everything that the rules find wrong with a statement, the worst first.
pub fn judge(statement: &Statement, plan: Option<&Node>, known: &Known) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(plan) = plan {
        indexes(statement, plan, known, &mut findings);
        plan.walk(&mut |node, _| node_faults(node, &mut findings));
        misestimate(statement, plan, &mut findings);
    }
    counters(statement, &mut findings);
    if has_offset(&statement.query) {
        let rows = statement.rows_per_call();
        let seen = format!("OFFSET in the text; {rows:.0} rows come from a call");
        findings.push(Finding::new(Fault::DeepOffset, None, seen));
    }
    findings.sort_by_key(|finding| finding.fault);
    findings.dedup_by(|one, two| one.fault == two.fault && one.object == two.object);
    findings
}

fn indexes(statement: &Statement, plan: &Node, known: &Known, findings: &mut Vec<Finding>) {
    let asked = asked(plan, (0, statement), known);
    let name = |oid: i64| {
        known.tables.iter().find(|table| table.oid == oid).map(|table| table.table_name.clone())
    };
    for candidate in candidates(&asked.wants, known) {
        let seen = format!(
            "about {:.0} rows fulfil the condition on ({}), and all are read",
            candidate.expected_rows,
            candidate.keys.join(", ")
        );
        findings.push(Finding::new(Fault::MissingIndex, name(candidate.table), seen));
    }
    for (oid, why) in asked.passed_over {
        let fault = match why {
            PassedOver::Wrapped => Fault::WrappedColumn,
            PassedOver::Pattern => Fault::LeadingWildcard,
            PassedOver::NoIndexAnswers => Fault::Alternatives,
            _ => continue,
        };
        let filter = filter_of(plan, known, oid).unwrap_or_default();
        findings.push(Finding::new(fault, name(oid), format!("it filters by {filter}")));
    }
}

fn filter_of(plan: &Node, known: &Known, oid: i64) -> Option<String> {
    let mut found = None;
    plan.walk(&mut |node, _| {
        if known.table(node).is_some_and(|table| table.oid == oid) && found.is_none() {
            found.clone_from(&node.filter);
        }
    });
    found
}

fn node_faults(node: &Node, findings: &mut Vec<Finding>) {
    match (node.kind.as_str(), node.inputs.as_slice()) {
        ("Nested Loop", [outer, inner]) => {
            let reads_all = |node: &Node| {
                let mut reads = None;
                node.walk(&mut |below, _| {
                    if below.kind == "Seq Scan" {
                        reads = reads.clone().or_else(|| below.relation.clone());
                    }
                });
                reads
            };
            let joined = node.join_filter.is_some();
            if let Some(table) = reads_all(inner).filter(|_| outer.rows > 1.0) {
                let work = outer.rows * inner.rows.max(1.0);
                if work > MANY_ROWS && joined {
                    let seen = format!(
                        "{:.0} times {:.0} rows of it are compared",
                        outer.rows, inner.rows
                    );
                    findings.push(Finding::new(Fault::NestedScan, Some(table), seen));
                }
            }
            let bound = joined || inner_is_bound(inner);
            if !bound && outer.rows > 1.0 && inner.rows > 1.0 && outer.rows * inner.rows > MANY_ROWS
            {
                let seen = format!("{:.0} times {:.0} rows, no condition", outer.rows, inner.rows);
                findings.push(Finding::new(Fault::CrossJoin, None, seen));
            }
        }
        ("Sort", _) if node.rows > MANY_ROWS * 10.0 => {
            let seen = format!("{:.0} rows are sorted by {}", node.rows, node.sort_key.join(", "));
            findings.push(Finding::new(Fault::LargeSort, None, seen));
        }
        _ => {}
    }
}

/// Whether the inner side of a nested loop gets values of the outer one: through an index.
fn inner_is_bound(inner: &Node) -> bool {
    let mut bound = false;
    inner.walk(&mut |node, _| {
        bound |= node.index.is_some() || node.kind == "Memoize" || node.kind.contains("Bitmap");
    });
    bound
}

fn misestimate(statement: &Statement, plan: &Node, findings: &mut Vec<Finding>) {
    // A LIMIT or the number of rows that change says nothing of the estimate below it, and an estimate
    // without values nothing of one with them.
    if plan.kind == "ModifyTable" || plan.kind == "Limit" || statement.query.contains('$') {
        return;
    }
    let (expected, came) = (plan.rows.max(1.0), statement.rows_per_call().max(1.0));
    let factor = (expected / came).max(came / expected);
    if factor >= MISESTIMATE {
        let seen = format!("{expected:.0} rows are expected, {came:.0} come from a call");
        findings.push(Finding::new(Fault::Misestimate, None, seen));
    }
}

#[expect(clippy::cast_precision_loss, reason = "an average")]
fn counters(statement: &Statement, findings: &mut Vec<Finding>) {
    let spilled = statement.temp_blocks as f64 / statement.calls.max(1) as f64;
    if spilled >= SPILL_BLOCKS {
        let seen = format!("{} temporary pages a call", rounded(spilled));
        findings.push(Finding::new(Fault::Spill, None, seen));
    }
    let rows = statement.rows_per_call();
    if rows >= MANY_ROWS {
        findings.push(Finding::new(Fault::ManyRows, None, format!("{rows:.0} rows a call")));
    }
    if statement.mean_ms() < 1.0 && statement.calls >= 100_000 {
        let seen = format!("{} calls of {} ms", statement.calls, rounded(statement.mean_ms()));
        findings.push(Finding::new(Fault::ManyCalls, None, seen));
    }
}

fn has_offset(query: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, query).tokenize() else { return false };
    let is_offset = |token: &Token| {
        matches!(token, Token::Word(word)
            if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("offset"))
    };
    let mut words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_)));
    let Some(_) = words.find(|token| is_offset(token)) else { return false };
    // `offset 0` is a fence for the planner, not a page.
    !matches!(words.next(), Some(Token::Number(text, _)) if text == "0")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::missing_index::tests::{known, statement};
    use super::*;

    fn plan(value: serde_json::Value) -> Node {
        serde_json::from_value(value).unwrap()
    }

    fn faults(statement: &Statement, node: &Node) -> Vec<Fault> {
        judge(statement, Some(node), &known()).into_iter().map(|it| it.fault).collect()
    }

    fn scan(filter: &str) -> Node {
        plan(json!({"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t",
                    "Alias": "t", "Filter": filter, "Plan Rows": 1.0}))
    }

    #[test]
    fn conditions_have_their_faults() {
        let slow = statement(50, 1_000);
        assert_eq!(faults(&slow, &scan("(t.customer = $1)")), [Fault::MissingIndex]);
        assert_eq!(faults(&slow, &scan("(date(t.at) = $1)")), [Fault::WrappedColumn]);
        assert_eq!(faults(&slow, &scan("(t.status ~~ '%x'::text)")), [Fault::LeadingWildcard]);
        let either = scan("((t.customer = $1) OR (t.kind = $2))");
        assert_eq!(faults(&slow, &either), [Fault::Alternatives]);
        assert_eq!(faults(&slow, &scan("(t.kind = $1)")), [], "most rows are wanted");
        let found = judge(&slow, Some(&scan("(date(t.at) = $1)")), &known());
        assert_eq!(found[0].object.as_deref(), Some("public.t"));
        assert!(found[0].evidence.contains("date(t.at)"));
    }

    #[test]
    fn joins_have_their_faults() {
        let nested = |filter: Option<&str>| {
            plan(json!({"Node Type": "Nested Loop", "Join Filter": filter, "Plan Rows": 1.0,
            "Plans": [
                {"Node Type": "Seq Scan", "Relation Name": "a", "Plan Rows": 500.0},
                {"Node Type": "Seq Scan", "Relation Name": "b", "Plan Rows": 900.0},
            ]}))
        };
        let slow = statement(50, 1_000);
        assert_eq!(faults(&slow, &nested(Some("(a.x = b.x)"))), [Fault::NestedScan]);
        assert_eq!(faults(&slow, &nested(None)), [Fault::CrossJoin]);
        let bound = plan(json!({"Node Type": "Nested Loop", "Plan Rows": 1.0, "Plans": [
            {"Node Type": "Seq Scan", "Relation Name": "a", "Plan Rows": 500.0},
            {"Node Type": "Index Scan", "Relation Name": "b", "Index Name": "i", "Plan Rows": 900.0},
        ]}));
        assert_eq!(faults(&slow, &bound), []);
    }

    #[test]
    fn counters_have_their_faults() {
        let node = plan(json!({"Node Type": "Index Scan", "Plan Rows": 5.0}));
        let spilling = Statement { temp_blocks: 5_000, ..statement(50, 9) };
        assert_eq!(faults(&spilling, &node), [Fault::Spill]);
        let many = Statement { calls: 200_000, rows: 200_000, ..statement(1, 9) };
        assert_eq!(faults(&many, &node), [Fault::ManyCalls]);
        let wide = Statement { rows: 50 * 20_000, ..statement(50, 9) };
        assert_eq!(faults(&wide, &node), [Fault::Misestimate, Fault::ManyRows]);
        assert_eq!(judge(&spilling, None, &known()).len(), 1, "without a plan, too");
    }

    #[test]
    fn pages_by_offset_are_seen() {
        let paged = |text: &str| Statement { query: text.into(), ..statement(50, 9) };
        let node = plan(json!({"Node Type": "Limit", "Plan Rows": 5.0}));
        assert_eq!(faults(&paged("select 1 limit $1 offset $2"), &node), [Fault::DeepOffset]);
        assert_eq!(faults(&paged("select 1 offset 0"), &node), []);
        assert_eq!(faults(&paged("select \"offset\" from t"), &node), []);
    }
}
