//! The plan of a statement as EXPLAIN (FORMAT JSON, VERBOSE) tells it, and how to walk it. PURE.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

/// One node of a plan.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// What it does: `Seq Scan`, `Hash Join`, …
    #[serde(rename = "Node Type")]
    pub kind: String,
    /// The schema of what it reads.
    #[serde(rename = "Schema")]
    pub schema: Option<String>,
    /// The table that it reads.
    #[serde(rename = "Relation Name")]
    pub relation: Option<String>,
    /// The index that it reads.
    #[serde(rename = "Index Name")]
    pub index: Option<String>,
    /// The name of the table in conditions.
    #[serde(rename = "Alias")]
    pub alias: Option<String>,
    /// What rows must fulfil after they were read.
    #[serde(rename = "Filter")]
    pub filter: Option<String>,
    /// What an index answers.
    #[serde(rename = "Index Cond")]
    pub index_condition: Option<String>,
    /// What rows of a lossy bitmap must fulfil again.
    #[serde(rename = "Recheck Cond")]
    pub recheck_condition: Option<String>,
    /// The condition of a hash join.
    #[serde(rename = "Hash Cond")]
    pub hash_condition: Option<String>,
    /// The condition of a merge join.
    #[serde(rename = "Merge Cond")]
    pub merge_condition: Option<String>,
    /// What pairs of rows must fulfil.
    #[serde(rename = "Join Filter")]
    pub join_filter: Option<String>,
    /// What rows are sorted by.
    #[serde(rename = "Sort Key")]
    pub sort_key: Vec<String>,
    /// The rows that the planner expects.
    #[serde(rename = "Plan Rows")]
    pub rows: f64,
    /// The bytes of a row.
    #[serde(rename = "Plan Width")]
    pub width: f64,
    /// The cost of all its rows.
    #[serde(rename = "Total Cost")]
    pub cost: f64,
    /// Its inputs.
    #[serde(rename = "Plans")]
    pub inputs: Vec<Self>,
}

/// What EXPLAIN answered, which may come as text; `None` when that is no JSON.
pub(super) fn explained(answer: &Value) -> Option<Cow<'_, Value>> {
    match answer.get("QUERY PLAN").unwrap_or(answer) {
        Value::String(text) => serde_json::from_str(text).ok().map(Cow::Owned),
        plan => Some(Cow::Borrowed(plan)),
    }
}

impl Node {
    /// The plan in the answer of EXPLAIN; `None` for an answer of another form.
    pub fn of_answer(answer: &Value) -> Option<Self> {
        Self::deserialize(explained(answer)?.get(0)?.get("Plan")?).ok()
    }

    /// Every node, with the nodes above it, the nearest last.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self, &[&'a Self])) {
        fn step<'a>(
            node: &'a Node,
            above: &mut Vec<&'a Node>,
            visit: &mut impl FnMut(&'a Node, &[&'a Node]),
        ) {
            visit(node, above);
            above.push(node);
            for input in &node.inputs {
                step(input, above, visit);
            }
            above.pop();
        }
        step(self, &mut Vec::new(), visit);
    }

    /// The conditions by which it joins its inputs.
    pub fn join_conditions(&self) -> impl Iterator<Item = &str> {
        let all = [&self.hash_condition, &self.merge_condition, &self.join_filter];
        all.into_iter().filter_map(|condition| condition.as_deref())
    }

    /// Whether it joins two inputs.
    pub fn is_join(&self) -> bool {
        matches!(self.kind.as_str(), "Hash Join" | "Merge Join" | "Nested Loop")
    }

    /// What rows of the table that it reads must fulfil, however that is found out.
    pub fn own_conditions(&self) -> impl Iterator<Item = &str> {
        let all = [&self.filter, &self.index_condition, &self.recheck_condition];
        all.into_iter().filter_map(|condition| condition.as_deref())
    }

    /// The tables that it reads, `schema.name`, each once and in order.
    pub fn tables(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.walk(&mut |node, _| {
            if let (Some(schema), Some(relation)) = (&node.schema, &node.relation) {
                found.insert(format!("{schema}.{relation}"));
            }
        });
        found
    }

    /// The indexes that it reads, `schema.name`, each once and in order.
    pub fn indexes(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.walk(&mut |node, above| {
            let Some(index) = &node.index else { return };
            // A bitmap of an index names no schema; the node that reads its table does.
            let mut named = std::iter::once(node).chain(above.iter().rev().copied());
            if let Some(schema) = named.find_map(|it| it.schema.as_deref()) {
                found.insert(format!("{schema}.{index}"));
            }
        });
        found
    }

    /// Node types, tables and indexes without costs: two plans with the same one work alike.
    pub fn fingerprint(&self) -> String {
        let mut parts = Vec::new();
        self.walk(&mut |node, above| {
            let name = |name: &Option<String>| name.clone().unwrap_or_default();
            let (depth, kind) = (above.len(), &node.kind);
            parts.push(format!("{depth}{kind} {} {};", name(&node.relation), name(&node.index)));
        });
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_is_read_in_either_form() {
        let plan = json!([{"Plan": {
            "Node Type": "Limit", "Plan Rows": 1, "Plan Width": 4, "Total Cost": 1.5,
            "Plans": [{"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t",
                       "Alias": "t", "Filter": "(t.a = $1)", "Plan Rows": 5}],
        }}]);
        for answer in [json!({"QUERY PLAN": plan}), json!({"QUERY PLAN": plan.to_string()})] {
            let node = Node::of_answer(&answer).unwrap();
            let mut seen = Vec::new();
            node.walk(&mut |node, above| seen.push((node.kind.clone(), above.len())));
            assert_eq!(seen, [("Limit".to_owned(), 0), ("Seq Scan".to_owned(), 1)]);
            assert_eq!(node.fingerprint(), "0Limit  ;1Seq Scan t ;");
        }
        assert!(Node::of_answer(&json!({"QUERY PLAN": "no"})).is_none());
    }

    #[test]
    fn a_bitmap_belongs_to_the_schema_of_its_table() {
        let plan = json!([{"Plan": {
            "Node Type": "Bitmap Heap Scan", "Schema": "shop", "Relation Name": "t", "Alias": "t",
            "Recheck Cond": "(t.a = $1)",
            "Plans": [{"Node Type": "Bitmap Index Scan", "Index Name": "t_a_idx",
                       "Index Cond": "(t.a = $1)"}],
        }}]);
        let node = Node::of_answer(&plan).unwrap();
        assert_eq!(node.tables(), BTreeSet::from(["shop.t".to_owned()]));
        assert_eq!(node.indexes(), BTreeSet::from(["shop.t_a_idx".to_owned()]));
        assert_eq!(node.own_conditions().collect::<Vec<_>>(), ["(t.a = $1)"]);
    }
}
