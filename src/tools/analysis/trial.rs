//! What is known of statements before and after advice was tried on a branch. PURE.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::forecast;
use super::missing::NotMeasured;
use super::missing_index::Statement;
use super::number::rounded;
use super::plan_tree::{Node, explained};

/// A statement of the recorded workload, with the plan that it has where it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recorded {
    /// Its identity in `pg_stat_statements`.
    pub queryid: i64,
    /// Its text, without literals.
    pub query: String,
    /// How often it was carried out.
    pub calls: i64,
    /// The milliseconds of all calls.
    pub total_ms: f64,
    /// The milliseconds of one call.
    pub mean_ms: f64,
    /// The rows of one call.
    pub rows_per_call: f64,
    /// The tables that its plan reads or writes, `schema.name`; without a plan, those that its text names.
    pub tables: BTreeSet<String>,
    /// The indexes that its plan reads, `schema.name`.
    pub indexes: BTreeSet<String>,
    /// What the planner thinks it costs; absent when it has no plan.
    pub cost: Option<f64>,
}

impl Recorded {
    /// A statement with its plan.
    pub fn new(statement: &Statement, plan: &Node) -> Self {
        Self {
            tables: plan.tables(),
            indexes: plan.indexes(),
            cost: Some(rounded(plan.cost)),
            ..Self::without_plan(statement, BTreeSet::new())
        }
    }

    /// A statement that the server cannot plan, with the tables that its text names.
    pub fn without_plan(statement: &Statement, tables: BTreeSet<String>) -> Self {
        Self {
            queryid: statement.queryid,
            query: statement.query.clone(),
            calls: statement.calls,
            total_ms: rounded(statement.total_ms),
            mean_ms: rounded(statement.mean_ms()),
            rows_per_call: rounded(statement.rows_per_call()),
            tables,
            ..Self::default()
        }
    }
}

/// Whether a text names a table, by the words in it.
pub fn names(query: &str, relation: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    query.match_indices(relation).any(|(at, _)| {
        let before = query.get(..at).and_then(|text| text.chars().next_back());
        let after = query.get(at + relation.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// A statement as it was measured on a branch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measured {
    /// Its identity in `pg_stat_statements`.
    pub queryid: i64,
    /// Its text without literals, the first 200 characters.
    pub query: String,
    /// How often it was carried out where it was recorded.
    pub calls: i64,
    /// The tables that its plan reads or writes, `schema.name`.
    pub tables: BTreeSet<String>,
    /// Its plan without values.
    pub plan: Option<Plan>,
    /// What carrying it out took.
    pub times: Option<Times>,
    /// Why it was not carried out.
    pub not_measured: Option<String>,
}

/// What is compared of a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Node types, tables and indexes without costs.
    pub shape: String,
    /// What the planner thinks it costs.
    pub cost: f64,
    /// The indexes that it reads, `schema.name`.
    pub indexes: BTreeSet<String>,
}

impl Plan {
    /// Of a plan, what is compared.
    pub fn of(node: &Node) -> Self {
        Self { shape: node.fingerprint(), cost: rounded(node.cost), indexes: node.indexes() }
    }
}

/// What carrying a statement out took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// The median of the warm executions, in milliseconds.
    pub median_ms: f64,
    /// How many warm executions there were.
    pub executions: u32,
    /// With how many sets of values.
    pub values: u32,
    /// The pages that one execution asked for: the median.
    pub pages: u64,
    /// The plans that it was carried out by, each once.
    pub plans: Vec<Plan>,
}

/// An index as it is on the branch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Built {
    /// `schema.name`, as in the catalog.
    pub index: String,
    /// Its bytes.
    pub size_bytes: u64,
    /// Whether queries may use it.
    pub is_valid: bool,
}

/// Statements that show what keeping new indexes of one table costs; they belong into an experiment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WriteTrial {
    /// The table, `schema.name` as in the catalog.
    pub table: String,
    /// The new indexes, in the order in which the experiment drops them.
    pub indexes: Vec<String>,
    /// The statements: writes, then for each index that it is dropped, and the same writes.
    pub statements: Vec<String>,
}

/// What was measured on a branch at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Measurement {
    /// The statements.
    pub statements: Vec<Measured>,
    /// The indexes of the tables that the advice is about.
    pub indexes: Vec<Built>,
    /// What an experiment could show of the writes.
    pub write_trials: Vec<WriteTrial>,
    /// What could not be measured.
    pub not_measured: Vec<NotMeasured>,
}

/// One execution, as EXPLAIN ANALYZE tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// The pages that it asked for.
    pub pages: u64,
    /// The bytes that it wrote to the log; `None` when that was not asked.
    pub wal_bytes: Option<u64>,
    /// The most rows that one of its nodes returned.
    pub rows: f64,
    /// Its plan.
    pub plan: Plan,
}

impl Execution {
    /// Reads the answer of `explain (analyze, buffers, verbose, format json)`; with `wal`, also that.
    pub fn of_answer(answer: &Value) -> Option<Self> {
        let plan = explained(answer)?;
        let first = plan.get(0)?;
        let root = first.get("Plan")?;
        let count = |name: &str| root.get(name).and_then(Value::as_u64);
        let pages = ["Shared Hit Blocks", "Shared Read Blocks"].into_iter().filter_map(count).sum();
        Some(Self {
            ms: first.get("Execution Time")?.as_f64()?,
            pages,
            wal_bytes: count("WAL Bytes"),
            rows: most_rows(root),
            plan: Plan::of(&Node::of_answer(&plan)?),
        })
    }
}

fn most_rows(node: &Value) -> f64 {
    let own = node.get("Actual Rows").and_then(Value::as_f64).unwrap_or(0.0);
    let inputs = node.get("Plans").and_then(Value::as_array).into_iter().flatten();
    inputs.map(most_rows).fold(own, f64::max)
}

/// The median; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    (!values.is_empty()).then(|| forecast::median(&mut values))
}

/// The names of everything that a plan seems to call: what stands before a parenthesis, without its schema.
/// Keywords are among them.
pub fn called(plan: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    texts(None, plan, &mut |name, text| {
        if name == Some("Function Name") {
            found.insert(text.to_owned());
        }
        for (at, _) in text.match_indices('(') {
            found.extend(name_before(text.get(..at).unwrap_or_default()));
        }
    });
    found
}

/// Whether a plan names a placeholder anywhere but in what it puts out.
pub fn is_compared(plan: &Value, placeholder: &str) -> bool {
    let mut found = false;
    texts(None, plan, &mut |name, text| {
        let ends = |at: usize| {
            let rest = text.get(at + placeholder.len()..).unwrap_or_default();
            !rest.starts_with(|c: char| c.is_ascii_digit())
        };
        found |= name != Some("Output") && text.match_indices(placeholder).any(|(at, _)| ends(at));
    });
    found
}

/// Every text of a plan, with the name of the property that it stands in.
fn texts<'a>(
    name: Option<&'a str>,
    value: &'a Value,
    visit: &mut impl FnMut(Option<&'a str>, &'a str),
) {
    match value {
        Value::String(text) => visit(name, text),
        Value::Array(list) => list.iter().for_each(|item| texts(name, item, visit)),
        Value::Object(map) => {
            map.iter().for_each(|(name, item)| texts(Some(name.as_str()), item, visit));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn name_before(text: &str) -> Option<String> {
    if let Some(quoted) = text.strip_suffix('"') {
        return quoted.rsplit('"').next().map(str::to_owned);
    }
    let begins = text.rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
    let name = text.get(begins.map_or(0, |at| at + 1)..)?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_execution_is_read() {
        let answer = json!({"QUERY PLAN": [{
            "Plan": {
                "Node Type": "ModifyTable", "Total Cost": 3.25, "Actual Rows": 0,
                "Shared Hit Blocks": 7, "Shared Read Blocks": 2, "WAL Bytes": 900,
                "Plans": [{"Node Type": "CTE Scan", "Actual Rows": 50.0}],
            },
            "Execution Time": 1.5,
        }]});
        let found = Execution::of_answer(&answer).unwrap();
        assert_eq!((found.ms, found.pages, found.wal_bytes), (1.5, 9, Some(900)));
        assert_eq!((found.rows, found.plan.cost), (50.0, 3.25));
        assert_eq!(Execution::of_answer(&json!({"QUERY PLAN": []})), None);
    }

    #[test]
    fn tables_are_words() {
        assert!(names("select * from shop.orders where a = $1", "orders"));
        assert!(names("select * from \"orders\"", "orders"));
        assert!(!names("select * from orders_old, reorders", "orders"));
    }

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn what_a_plan_calls_and_compares() {
        let plan = json!([{"Plan": {
            "Node Type": "Seq Scan", "Output": ["$2", "app.\"My Fn\"(t.a)"],
            "Filter": "((t.a = $1) AND (random() < 0.5) AND (t.c = ANY (ARRAY[$10])))",
            "Plans": [{"Function Name": "generate_series"}],
        }}]);
        let mut names: Vec<String> = called(&plan).into_iter().collect();
        names.retain(|name| !["AND", "ANY"].contains(&name.as_str()));
        assert_eq!(names, ["My Fn", "generate_series", "random"]);
        assert!(is_compared(&plan, "$1") && is_compared(&plan, "$10"));
        assert!(!is_compared(&plan, "$2") && !is_compared(&plan, "$3"));
    }
}
