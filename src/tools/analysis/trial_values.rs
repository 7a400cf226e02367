//! Values with which a recorded statement is carried out. PURE.
//!
//! Statements are recorded without their values. What a placeholder is compared with tells the column that its
//! value comes from, and the planner's statistics tell values of that column that are there. A placeholder
//! that only is put out, or that a LIMIT holds, has a value without that. Whatever is left has none, and
//! the statement is not carried out.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use sqlparser::tokenizer::Token;

use super::plan_tree::Node;
use super::predicate::{Key, Side, placeholders};
use super::trial::is_compared;
use super::workload::tokens;

/// Where in a column the values come from, as shares of its sorted values: its quartiles.
pub const QUANTILES: [f64; 3] = [0.25, 0.5, 0.75];

/// More of a column than this must be common values for one of them to stand for all.
const MOSTLY_COMMON: f64 = 0.5;

/// What the planner knows of the values of a column.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ColumnValues {
    /// The table's schema.
    pub schema_name: String,
    /// The table.
    pub relation_name: String,
    /// The column.
    pub column_name: String,
    /// The rows of the table.
    pub rows: f64,
    /// The most common values.
    pub common: Option<Vec<String>>,
    /// The share of rows of each.
    pub frequencies: Option<Vec<f64>>,
    /// The other values: sorted, with as many rows between each two.
    pub bounds: Option<Vec<String>>,
}

impl ColumnValues {
    /// A value that is there, at this share of the sorted values.
    fn at(&self, quantile: f64) -> Option<&str> {
        let common = self.common.as_deref().unwrap_or_default();
        let share: f64 = self.frequencies.iter().flatten().sum();
        let bounds = self.bounds.as_deref().unwrap_or_default();
        let typical = if bounds.is_empty() || (share > MOSTLY_COMMON && !common.is_empty()) {
            common
        } else {
            bounds
        };
        pick(typical, quantile)
    }

    /// The value that this share of the values lies below.
    fn below(&self, share: f64) -> Option<String> {
        if let Some(bounds) = self.bounds.as_deref().filter(|bounds| !bounds.is_empty()) {
            return pick(bounds, share).map(str::to_owned);
        }
        let mut common = self.common.clone()?;
        // The order of numbers is not that of their texts.
        let number = |text: &String| text.parse::<f64>().unwrap_or(f64::NAN);
        common.sort_by(|one, two| number(one).total_cmp(&number(two)).then_with(|| one.cmp(two)));
        pick(&common, share).map(str::to_owned)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a list of at most ten thousand"
)]
fn pick(list: &[String], share: f64) -> Option<&str> {
    let last = list.len().checked_sub(1)?;
    let place = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
    list.get(place).map(String::as_str)
}

/// Where a value is wanted.
#[derive(Clone, Debug, PartialEq)]
enum Slot {
    /// Compared with a column.
    Column { table: (String, String), key: Key, side: Side },
    /// The rows that a LIMIT lets through.
    Limit,
    /// Only put out.
    Any,
}

/// The places of a statement that want values.
#[derive(Clone, Debug, PartialEq)]
pub struct Slots {
    slots: BTreeMap<String, Slot>,
    rows_per_call: f64,
}

impl Slots {
    /// Finds the places in a text and its plan without values, or says which has no value.
    pub fn of(query: &str, plan: &Value, rows_per_call: f64) -> Result<Self, String> {
        let node = Node::of_answer(plan).ok_or("its plan cannot be read")?;
        let wanted = wanted(query).ok_or("its text cannot be read")?;
        let mut slots = BTreeMap::new();
        node.walk(&mut |node, _| {
            let (Some(schema), Some(relation)) = (&node.schema, &node.relation) else { return };
            let alias = node.alias.as_deref().unwrap_or(relation);
            let found = node.own_conditions().flat_map(|text| placeholders(text, alias));
            for (name, key, side) in found {
                let table = (schema.clone(), relation.clone());
                slots.entry(name).or_insert(Slot::Column { table, key, side });
            }
        });
        for (name, is_limit) in wanted {
            if is_limit {
                slots.entry(name).or_insert(Slot::Limit);
            } else if let Entry::Vacant(slot) = slots.entry(name) {
                if is_compared(plan, slot.key()) {
                    return Err(format!("no value is known for {}", slot.key()));
                }
                slot.insert(Slot::Any);
            }
        }
        Ok(Self { slots, rows_per_call })
    }

    /// The tables that values are wanted of, each with its schema.
    pub fn tables(&self) -> BTreeSet<(String, String)> {
        let table = |slot: &Slot| match slot {
            Slot::Column { table, .. } => Some(table.clone()),
            Slot::Limit | Slot::Any => None,
        };
        self.slots.values().filter_map(table).collect()
    }

    /// A value for each placeholder, from this place of each column.
    pub fn values(
        &self,
        known: &[ColumnValues],
        quantile: f64,
    ) -> Result<BTreeMap<String, String>, String> {
        let mut values = BTreeMap::new();
        for (nth, (name, slot)) in (0_u32..).zip(&self.slots) {
            let value = match slot {
                Slot::Any => "1".to_owned(),
                Slot::Limit => format!("{:.0}", self.rows_per_call.ceil().max(1.0)),
                Slot::Column { table, key, side } => {
                    let column = column(known, table, key)?;
                    // Members of one list differ.
                    let shifted = (quantile + 0.1 * f64::from(nth)).fract();
                    let value = match side {
                        Side::At | Side::Among => column.at(shifted).map(str::to_owned),
                        Side::Above | Side::Below => column.below(self.edge(column, key, *side)),
                    };
                    let hidden = || format!("the statistics have no value of {}", key.column());
                    let value = folded(key, value.ok_or_else(hidden)?);
                    if *side == Side::Among { array_of(&value) } else { value }
                }
            };
            values.insert(name.clone(), value);
        }
        Ok(values)
    }

    /// Where a range ends, so that about as many rows lie in it as a call returned. With other conditions
    /// beside it nobody knows: then it is the middle.
    fn edge(&self, column: &ColumnValues, key: &Key, side: Side) -> f64 {
        let compared = self.slots.values().filter_map(|slot| match slot {
            Slot::Column { key: other, side, .. } => Some((other == key, *side)),
            Slot::Limit | Slot::Any => None,
        });
        let compared: Vec<(bool, Side)> = compared.collect();
        if compared.iter().any(|(is_same, _)| !is_same) {
            return 0.5;
        }
        let share = (self.rows_per_call / column.rows.max(1.0)).clamp(0.0, 1.0);
        let has = |wanted: Side| compared.iter().any(|(_, side)| *side == wanted);
        let is_two_sided = has(Side::Above) && has(Side::Below);
        match (side, is_two_sided) {
            (Side::Above, false) => 1.0 - share,
            (Side::Above, true) => 0.5 - share / 2.0,
            (_, true) => 0.5 + share / 2.0,
            (_, false) => share,
        }
    }
}

fn column<'a>(
    known: &'a [ColumnValues],
    (schema, relation): &(String, String),
    key: &Key,
) -> Result<&'a ColumnValues, String> {
    let is_it = |it: &&ColumnValues| {
        it.schema_name == *schema && it.relation_name == *relation && it.column_name == key.column()
    };
    known
        .iter()
        .find(is_it)
        .ok_or_else(|| format!("there are no statistics of {schema}.{relation}.{}", key.column()))
}

fn folded(key: &Key, value: String) -> String {
    match key {
        Key::Folded(function, _) if function == "lower" => value.to_lowercase(),
        Key::Folded(function, _) if function == "upper" => value.to_uppercase(),
        Key::Folded(..) | Key::Column(_) => value,
    }
}

/// An array of one element, as a literal.
fn array_of(value: &str) -> String {
    format!("{{\"{}\"}}", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The placeholders of a text, and whether each is what a LIMIT holds.
fn wanted(query: &str) -> Option<BTreeMap<String, bool>> {
    let mut found = BTreeMap::new();
    let mut before: Option<Token> = None;
    for token in tokens(query)? {
        if matches!(token, Token::Whitespace(_)) {
            continue;
        }
        if let Token::Placeholder(name) = &token {
            let is_limit = matches!(&before, Some(Token::Word(word))
                if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("limit"));
            found.entry(name.clone()).or_insert(is_limit);
        }
        before = Some(token);
    }
    Some(found)
}

/// The text with values in the place of placeholders, as literals whose type the server finds by itself.
pub fn with_values(query: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut text = String::with_capacity(query.len());
    for token in tokens(query)? {
        match &token {
            Token::Placeholder(name) => {
                let value = values.get(name)?;
                text.push('\'');
                text.push_str(&value.replace('\'', "''"));
                text.push('\'');
            }
            other => text.push_str(&other.to_string()),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn plan(filter: &str) -> Value {
        json!([{"Plan": {
            "Node Type": "Seq Scan", "Schema": "shop", "Relation Name": "orders", "Alias": "o",
            "Output": ["o.id", "$9"], "Filter": filter,
        }}])
    }

    fn known(column: &str, bounds: &[&str]) -> ColumnValues {
        ColumnValues {
            schema_name: "shop".into(),
            relation_name: "orders".into(),
            column_name: column.into(),
            rows: 100.0,
            bounds: Some(bounds.iter().map(|it| (*it).to_owned()).collect()),
            ..ColumnValues::default()
        }
    }

    fn filled(query: &str, filter: &str, rows: f64, quantile: f64) -> Result<String, String> {
        let slots = Slots::of(query, &plan(filter), rows)?;
        let known = [
            known("a", &["0", "10", "20", "30", "40"]),
            known("name", &["Ada", "B'o", "Cy"]),
            ColumnValues {
                common: Some(vec!["done".into(), "open".into()]),
                frequencies: Some(vec![0.6, 0.3]),
                ..known("state", &["late"])
            },
        ];
        let values = slots.values(&known, quantile)?;
        Ok(with_values(query, &values).unwrap())
    }

    #[test]
    fn values_come_from_the_columns_that_they_are_compared_with() {
        let found = filled("select $9 from shop.orders o where a = $1", "(o.a = $1)", 1.0, 0.5);
        assert_eq!(found.unwrap(), "select '1' from shop.orders o where a = '20'");
        let found = filled("select lower(name) = $1", "(lower((o.name)::text) = $1)", 1.0, 0.5);
        assert_eq!(found.unwrap(), "select lower(name) = 'b''o'");
        let found = filled("state = $1 limit $2", "(o.state = $1)", 7.2, 0.0);
        assert_eq!(found.unwrap(), "state = 'done' limit '8'");
        let found = filled("a = any($1)", "(o.a = ANY ($1))", 1.0, 0.25);
        assert_eq!(found.unwrap(), "a = any('{\"10\"}')");
        let found = filled("a in ($1, $2)", "(o.a = ANY (ARRAY[$1, $2]))", 1.0, 0.5);
        assert_eq!(found.unwrap(), "a in ('20', '20')");
    }

    #[test]
    fn a_range_is_as_wide_as_what_was_returned() {
        let two = filled("a $1 $2", "((o.a > $1) AND (o.a < $2))", 50.0, 0.5);
        assert_eq!(two.unwrap(), "a '10' '30'");
        let of = |filter: &str, rows| filled("a $1", filter, rows, 0.5).unwrap();
        assert_eq!(of("(o.a >= $1)", 25.0), "a '30'");
        assert_eq!(of("(o.a < $1)", 25.0), "a '10'");
    }

    #[test]
    fn what_has_no_value_is_told() {
        let found = filled("at > $1", "(o.at > (now() - ($1)::interval))", 1.0, 0.5);
        assert_eq!(found.unwrap_err(), "no value is known for $1");
        let found = filled("at = $1", "(o.at = $1)", 1.0, 0.5);
        assert_eq!(found.unwrap_err(), "there are no statistics of shop.orders.at");
        assert!(with_values("a = $1", &BTreeMap::new()).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_value_leaves_its_quotes(value in "\\PC{0,20}") {
            let values = BTreeMap::from([("$1".to_owned(), value.clone())]);
            let text = with_values("a = $1 and b", &values).unwrap();
            let tokens = Tokenizer::new(&PostgreSqlDialect {}, &text).tokenize().unwrap();
            let literal = tokens.iter().find_map(|token| match token {
                Token::SingleQuotedString(text) => Some(text.clone()),
                _ => None,
            });
            proptest::prop_assert_eq!(literal, Some(value));
            proptest::prop_assert!(text.ends_with("' and b"));
        }
    }
}
