//! Which index the plans of the recorded workload ask for. PURE.
//!
//! A table that is read from end to end is only a hint. What counts is the condition for which it is: an
//! index helps where few rows fulfil it, where no index does so already, and where the statement was in
//! fact carried out that way. Columns that are compared by equality come first, the most selective one
//! before the others; then one range, or the order that a LIMIT cuts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::index::IndexRow;
use super::plan_tree::Node;
use super::predicate::{Key, Obstacle, Parts, Usage, sort_key, take_apart};

/// More rows than this share of a table are read faster from end to end.
const MOST_SHARE: f64 = 0.05;

/// So few rows need no further key.
const FEW_ROWS: f64 = 20.0;

/// The most keys that are compared by equality.
const MOST_EQUAL: usize = 3;

/// A statement that reads fewer pages than this share of a table does not read it from end to end, whatever
/// its generic plan says.
const LEAST_PAGES: f64 = 0.1;

/// A table, as `shared/large_tables` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct Table {
    /// Its OID.
    pub oid: i64,
    /// Its schema.
    pub schema_name: String,
    /// Its name in the schema.
    pub relation_name: String,
    /// The table, quoted where it must be.
    pub table_name: String,
    /// Its rows.
    pub rows: f64,
    /// Its pages.
    pub pages: u64,
    /// Whether it is a partition.
    pub is_partition: bool,
    /// How often it was read from end to end since the counters began.
    pub sequential_scans: i64,
    /// Rows inserted since then.
    pub inserted: i64,
    /// Rows updated since then.
    pub updated: i64,
    /// Rows deleted since then.
    pub deleted: i64,
    /// Updates that touched no index.
    pub hot_updated: i64,
}

/// A column, as `shared/column_statistics` returns it.
#[derive(Clone, Debug, Deserialize)]
pub struct Column {
    /// The table.
    pub table_oid: i64,
    /// Its name in the catalog.
    pub column_name: String,
    /// Its name, quoted where it must be.
    pub written: String,
    /// Whether a B-tree can hold it.
    pub orderable: bool,
    /// The share of nulls.
    pub null_share: Option<f64>,
    /// The average bytes of a value.
    pub width: Option<f64>,
    /// Distinct values; below 0, as a share of the rows.
    pub distinct_values: Option<f64>,
    /// The most common values.
    pub common: Option<Vec<String>>,
    /// The share of each.
    pub frequencies: Option<Vec<f64>>,
}

/// A statement of the recorded workload.
#[derive(Clone, Debug, Deserialize)]
pub struct Statement {
    /// Its identity.
    pub queryid: i64,
    /// Its text, without literals.
    pub query: String,
    /// How often it was carried out.
    pub calls: i64,
    /// How long that took in all, in milliseconds.
    pub total_ms: f64,
    /// The rows that it returned or changed in all.
    pub rows: i64,
    /// The pages that it asked for in all.
    pub blocks: i64,
    /// The pages that it wrote to temporary files in all.
    pub temp_blocks: i64,
}

impl Statement {
    /// The pages that one call asked for.
    #[expect(clippy::cast_precision_loss, reason = "an average")]
    pub fn blocks_per_call(&self) -> f64 {
        self.blocks as f64 / self.calls.max(1) as f64
    }

    /// The rows of one call.
    #[expect(clippy::cast_precision_loss, reason = "an average")]
    pub fn rows_per_call(&self) -> f64 {
        self.rows as f64 / self.calls.max(1) as f64
    }

    /// The milliseconds of one call.
    #[expect(clippy::cast_precision_loss, reason = "an average")]
    pub fn mean_ms(&self) -> f64 {
        self.total_ms / self.calls.max(1) as f64
    }
}

/// Everything that is known of a database's tables.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The tables that are large enough.
    pub tables: Vec<Table>,
    /// Their columns.
    pub columns: Vec<Column>,
    /// All indexes.
    pub indexes: Vec<IndexRow>,
}

impl Known {
    /// The table that a node of a plan reads, when it is large enough.
    pub fn table(&self, node: &Node) -> Option<&Table> {
        let (schema, relation) = (node.schema.as_deref()?, node.relation.as_deref()?);
        self.tables.iter().find(|it| it.schema_name == schema && it.relation_name == relation)
    }

    fn column(&self, table: &Table, name: &str) -> Option<&Column> {
        self.columns.iter().find(|it| it.table_oid == table.oid && it.column_name == name)
    }

    fn indexes_of(&self, table: &Table) -> impl Iterator<Item = &IndexRow> {
        self.indexes.iter().filter(|index| index.table_oid == table.oid && index.is_usable())
    }
}

/// An index that a statement asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    /// The table's OID.
    pub table: i64,
    /// The statement, by its place in the workload.
    pub statement: usize,
    /// The keys that are compared by equality, each with the share of rows that fulfil it.
    pub equal: Vec<(Key, f64)>,
    /// A range, or the order that is wanted; each with whether it runs backwards.
    pub tail: Vec<(Key, bool)>,
    /// The rows that it would read.
    pub expected_rows: f64,
    /// Whether a LIMIT cuts the order.
    pub is_top: bool,
}

/// Why a table that is read from end to end wants no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PassedOver {
    /// There is no condition.
    ReadsAll,
    /// Too many rows fulfil it.
    NotSelective,
    /// The pattern begins with a wildcard, or is not known.
    Pattern,
    /// A function or a cast stands around the column.
    Wrapped,
    /// Alternatives, or something that no index answers.
    NoIndexAnswers,
    /// An index for it is there, and the planner does not take it.
    IndexThere,
    /// A partial index may serve the values that were given.
    PartialIndex,
    /// The statement read far fewer pages than the table has: it was carried out in another way.
    OtherPlan,
    /// The table was not analyzed.
    NoStatistics,
    /// It is a partition; the index belongs to the whole.
    Partition,
}

impl PassedOver {
    /// The reason, for people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ReadsAll => "the statement wants all rows",
            Self::NotSelective => "too many rows fulfil the condition",
            Self::Pattern => "a pattern with a wildcard in front, or one that is not known",
            Self::Wrapped => "a function or a cast stands around the column",
            Self::NoIndexAnswers => "no B-tree answers the condition",
            Self::IndexThere => "there is an index for it, and the planner does not take it",
            Self::PartialIndex => "a partial index may serve the values that were given",
            Self::OtherPlan => "it was carried out in another way: it read far fewer pages",
            Self::NoStatistics => {
                "the table was not analyzed, or its statistics are hidden from us"
            }
            Self::Partition => "it is a partition: judge the whole table",
        }
    }
}

/// What the plan of one statement asks for, and what it does not.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The indexes that it asks for.
    pub wants: Vec<Want>,
    /// The tables, by OID, that want none.
    pub passed_over: Vec<(i64, PassedOver)>,
}

/// What the plan of a statement asks for.
pub fn asked(plan: &Node, (place, statement): (usize, &Statement), known: &Known) -> Asked {
    let mut asked = Asked::default();
    plan.walk(&mut |node, above| {
        if node.kind != "Seq Scan" {
            return;
        }
        let Some(table) = known.table(node) else { return };
        match want(Scan { node, above, table, statement }, known) {
            Ok(want) => asked.wants.push(Want { statement: place, ..want }),
            Err(why) => asked.passed_over.push((table.oid, why)),
        }
    });
    asked
}

/// One table that is read from end to end.
#[derive(Clone, Copy)]
struct Scan<'a> {
    node: &'a Node,
    above: &'a [&'a Node],
    table: &'a Table,
    statement: &'a Statement,
}

#[expect(clippy::cast_precision_loss, reason = "compared with a share")]
fn want(scan: Scan<'_>, known: &Known) -> Result<Want, PassedOver> {
    let Scan { node, table, statement, .. } = scan;
    if table.is_partition {
        return Err(PassedOver::Partition);
    }
    let alias = node.alias.as_deref().unwrap_or(&table.relation_name);
    let filter = node.filter.as_deref().map(|text| take_apart(text, alias)).unwrap_or_default();
    let joins = joins(scan, alias);
    let order = top_order(scan, alias);
    if filter.predicates.is_empty() && joins.is_empty() && order.is_empty() {
        return Err(obstacle(&filter));
    }
    let was_read = statement.blocks_per_call() >= LEAST_PAGES * table.pages as f64;
    if !was_read || table.sequential_scans == 0 {
        return Err(PassedOver::OtherPlan);
    }
    let want = keys(scan, (&filter, &joins, order), known)?;
    match existing(&want, &filter, table, known) {
        Some(why) => Err(why),
        None => Ok(want),
    }
}

fn obstacle(filter: &Parts) -> PassedOver {
    match filter.obstacles.first() {
        None => PassedOver::ReadsAll,
        Some(Obstacle::Pattern) => PassedOver::Pattern,
        Some(Obstacle::Wrapped) => PassedOver::Wrapped,
        Some(Obstacle::Alternatives | Obstacle::Other) => PassedOver::NoIndexAnswers,
    }
}

/// The columns by which the table is joined to few rows, with how many.
fn joins(scan: Scan<'_>, alias: &str) -> Vec<(Key, f64)> {
    let mut below = scan.node;
    for node in scan.above.iter().rev() {
        if node.is_join() {
            let other = node.inputs.iter().find(|input| !std::ptr::eq(*input, below));
            let others = other.map_or(f64::INFINITY, |other| other.rows);
            let mut keys = Vec::new();
            for condition in node.join_conditions() {
                for predicate in take_apart(condition, alias).predicates {
                    if let Usage::Joined(_) = predicate.usage {
                        keys.push((predicate.key, others));
                    }
                }
            }
            return keys;
        }
        // What stands between a scan and its join hands rows on; anything else ends the search.
        if !matches!(node.kind.as_str(), "Hash" | "Materialize" | "Gather" | "Memoize" | "Sort") {
            return Vec::new();
        }
        below = node;
    }
    Vec::new()
}

/// The order that a LIMIT cuts, when all of it is the table's own.
fn top_order(scan: Scan<'_>, alias: &str) -> Vec<(Key, bool)> {
    let mut above = scan.above.iter().rev().skip_while(|node| node.kind.starts_with("Gather"));
    let Some(sort) = above.next().filter(|node| node.kind == "Sort") else { return Vec::new() };
    let limited = above.find(|node| !node.kind.starts_with("Gather"));
    // How many rows a LIMIT lets through is not in a plan without values; how many came is known.
    let few = limited.is_some_and(|node| node.kind == "Limit")
        && scan.statement.rows_per_call() <= (MOST_SHARE * scan.table.rows).max(FEW_ROWS);
    let keys: Option<Vec<_>> = sort.sort_key.iter().map(|text| sort_key(text, alias)).collect();
    keys.filter(|_| few).unwrap_or_default()
}

type Conditions<'a> = (&'a Parts, &'a [(Key, f64)], Vec<(Key, bool)>);

/// The keys that an index would have.
fn keys(
    scan: Scan<'_>,
    (filter, joins, order): Conditions<'_>,
    known: &Known,
) -> Result<Want, PassedOver> {
    let table = scan.table;
    let mut equal: Vec<(Key, f64)> = Vec::new();
    let mut ranges: Vec<(Key, bool)> = Vec::new();
    let mut unordered = false;
    for predicate in &filter.predicates {
        let Some(column) = known.column(table, predicate.key.column()) else { continue };
        if !column.orderable {
            unordered = true;
            continue;
        }
        match &predicate.usage {
            Usage::Range { known } => ranges.push((predicate.key.clone(), *known)),
            usage => {
                let share = share(column, usage, table.rows).ok_or(PassedOver::NoStatistics)?;
                equal.push((predicate.key.clone(), share));
            }
        }
    }
    for (key, others) in joins {
        let Some(column) = known.column(table, key.column()).filter(|it| it.orderable) else {
            continue;
        };
        let one = share(column, &Usage::Equal(None), table.rows).ok_or(PassedOver::NoStatistics)?;
        equal.push((key.clone(), (one * others).min(1.0)));
    }
    equal.sort_by(|one, two| one.1.total_cmp(&two.1).then_with(|| one.0.cmp(&two.0)));
    equal.dedup_by(|one, two| one.0 == two.0);
    let all_equal = equal.len();
    let mut expected = table.rows;
    let mut chosen: Vec<(Key, f64)> = Vec::new();
    for (key, share) in equal {
        if chosen.len() == MOST_EQUAL || (expected <= FEW_ROWS && !chosen.is_empty()) || share > 0.9
        {
            break;
        }
        expected *= share;
        chosen.push((key, share));
    }
    // What is cut from an order can be read in that order, when nothing else is asked.
    let answers_all = chosen.len() == all_equal && ranges.is_empty() && filter.obstacles.is_empty();
    if !order.is_empty() && answers_all && expected > FEW_ROWS {
        let orderable = order.iter().all(|(key, _)| {
            known.column(table, key.column()).is_some_and(|column| column.orderable)
        });
        if orderable {
            return Ok(made(table, chosen, order, FEW_ROWS, true));
        }
    }
    let range = ranges.iter().find(|(_, known)| *known).or_else(|| ranges.first());
    let mut tail = Vec::new();
    if let Some((key, estimated)) = range.filter(|_| expected > FEW_ROWS) {
        tail.push((key.clone(), false));
        if *estimated {
            // The planner knows all conditions together.
            expected = expected.min(scan.node.rows);
        }
    }
    if chosen.is_empty() && tail.is_empty() {
        return Err(match (unordered, all_equal) {
            (true, _) => PassedOver::NoIndexAnswers,
            (false, 0) => obstacle(filter),
            (false, _) => PassedOver::NotSelective,
        });
    }
    if expected > MOST_SHARE * table.rows {
        return Err(PassedOver::NotSelective);
    }
    Ok(made(table, chosen, tail, expected, false))
}

fn made(
    table: &Table,
    equal: Vec<(Key, f64)>,
    tail: Vec<(Key, bool)>,
    expected_rows: f64,
    is_top: bool,
) -> Want {
    Want { table: table.oid, statement: 0, equal, tail, expected_rows, is_top }
}

/// The share of rows that fulfil a condition; `None` without statistics.
fn share(column: &Column, usage: &Usage, rows: f64) -> Option<f64> {
    let nulls = column.null_share?;
    let distinct = match column.distinct_values? {
        share if share < 0.0 => -share * rows,
        0.0 => return None,
        count => count,
    }
    .max(1.0);
    let common = column.common.as_deref().unwrap_or_default();
    let frequencies = column.frequencies.as_deref().unwrap_or_default();
    let any = (1.0 - nulls) / distinct;
    let found = match usage {
        Usage::Null => nulls,
        Usage::OneOf => any * 10.0,
        Usage::Equal(Some(value)) => {
            let at = common.iter().position(|known| known == value);
            let rest = (1.0 - nulls - frequencies.iter().sum::<f64>()).max(0.0);
            #[expect(clippy::cast_precision_loss, reason = "a few hundred values at most")]
            let others = (distinct - common.len() as f64).max(1.0);
            at.and_then(|at| frequencies.get(at).copied()).unwrap_or(rest / others)
        }
        Usage::Equal(None) | Usage::Joined(_) | Usage::Range { .. } => any,
    };
    Some(found.clamp(0.0, 1.0))
}

/// Why an index that is there makes a new one needless.
fn existing(want: &Want, filter: &Parts, table: &Table, known: &Known) -> Option<PassedOver> {
    let written = |key: &Key| plain(&written(key, table, known));
    let mut equal: Vec<String> = want.equal.iter().map(|(key, _)| written(key)).collect();
    equal.sort();
    let tail = want.tail.first().map(|(key, _)| written(key));
    let wanted = equal.len() + want.tail.len().min(1);
    for index in known.indexes_of(table) {
        let keys: Vec<String> = index.keys.iter().map(|key| plain(key)).collect();
        let mut first: Vec<String> = keys.iter().take(equal.len()).cloned().collect();
        first.sort();
        let by_method = index.method == "btree" || (index.method == "hash" && wanted == 1);
        let serves = by_method
            && first == equal
            && tail.as_ref().is_none_or(|tail| keys.get(equal.len()) == Some(tail));
        if index.is_partial {
            let speaks_of = |column: &String| {
                index
                    .predicate
                    .as_deref()
                    .is_some_and(|predicate| predicate.contains(column.as_str()))
            };
            let begins =
                keys.first().is_some_and(|key| equal.contains(key) || tail.as_ref() == Some(key));
            if filter.columns.iter().any(speaks_of) && (serves || begins || wanted == 1) {
                return Some(PassedOver::PartialIndex);
            }
        } else if serves {
            return Some(PassedOver::IndexThere);
        }
    }
    None
}

/// A key as it stands in a statement.
pub fn written(key: &Key, table: &Table, known: &Known) -> String {
    let name = |name: &str| {
        known.column(table, name).map_or_else(|| name.to_owned(), |column| column.written.clone())
    };
    match key {
        Key::Column(column) => name(column),
        Key::Folded(function, column) => format!("{function}({})", name(column)),
    }
}

/// A key without parentheses, casts to text and quotes, to compare what was written by two hands.
pub fn plain(key: &str) -> String {
    let key = key.to_lowercase().replace("::text", "");
    key.chars().filter(|c| !matches!(c, '(' | ')' | '"' | ' ')).collect()
}

/// An index that several statements ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The table's OID.
    pub table: i64,
    /// Its keys as they stand in a statement, in order.
    pub keys: Vec<String>,
    /// The statements, by their places in the workload.
    pub statements: Vec<usize>,
    /// The rows that the most demanding one would read.
    pub expected_rows: f64,
    /// Whether it is only there for an order.
    pub is_top: bool,
    /// The bytes that it would have.
    pub bytes: u64,
}

/// The fewest indexes that serve all wants: those with the same keys are one, and one whose keys begin
/// another is served by that.
pub fn candidates(wants: &[Want], known: &Known) -> Vec<Candidate> {
    let mut asked: BTreeMap<(i64, Key), usize> = BTreeMap::new();
    for want in wants {
        for (key, _) in &want.equal {
            *asked.entry((want.table, key.clone())).or_default() += 1;
        }
    }
    let mut found: Vec<Candidate> = Vec::new();
    for want in wants {
        let Some(table) = known.tables.iter().find(|table| table.oid == want.table) else {
            continue;
        };
        let mut equal = want.equal.clone();
        // What most statements ask for comes first: it serves them all.
        let count = |key: &Key| asked.get(&(want.table, key.clone())).copied().unwrap_or(0);
        equal.sort_by(|(one, a), (two, b)| {
            count(two).cmp(&count(one)).then(a.total_cmp(b)).then_with(|| one.cmp(two))
        });
        let mixed = want.tail.iter().any(|(_, descends)| *descends)
            && !want.tail.iter().all(|(_, descends)| *descends);
        let tail = want.tail.iter().map(|(key, descends)| {
            let suffix = if mixed && *descends { " desc" } else { "" };
            format!("{}{suffix}", written(key, table, known))
        });
        let keys: Vec<String> =
            equal.iter().map(|(key, _)| written(key, table, known)).chain(tail).collect();
        match found.iter_mut().find(|it| it.table == want.table && it.keys == keys) {
            Some(same) => join(same, want),
            None => found.push(Candidate {
                table: want.table,
                bytes: bytes(want, table, known),
                keys,
                statements: vec![want.statement],
                expected_rows: want.expected_rows,
                is_top: want.is_top,
            }),
        }
    }
    let begins = |one: &Candidate, two: &Candidate| {
        one.table == two.table && one.keys.len() < two.keys.len() && two.keys.starts_with(&one.keys)
    };
    let all = found.clone();
    found.retain(|one| !all.iter().any(|two| begins(one, two)));
    for kept in &mut found {
        let begun: Vec<&Candidate> = all.iter().filter(|one| begins(one, kept)).collect();
        kept.is_top &= begun.iter().all(|one| one.is_top);
        kept.statements.extend(begun.iter().flat_map(|one| &one.statements));
        kept.statements.sort_unstable();
        kept.statements.dedup();
    }
    found
}

fn join(candidate: &mut Candidate, want: &Want) {
    candidate.statements.push(want.statement);
    candidate.expected_rows = candidate.expected_rows.max(want.expected_rows);
    candidate.is_top &= want.is_top;
}

/// Entries of a B-tree: a header of 8 bytes and a pointer of 4 beside the keys, pages nine tenths full.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, never below 0"
)]
fn bytes(want: &Want, table: &Table, known: &Known) -> u64 {
    let keys = want.equal.iter().map(|(key, _)| key).chain(want.tail.iter().map(|(key, _)| key));
    let width: f64 = keys
        .map(|key| known.column(table, key.column()).and_then(|it| it.width).unwrap_or(8.0))
        .sum();
    let entry = (width / 8.0).ceil() * 8.0 + 12.0;
    (table.rows * entry / 0.9) as u64
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::super::index::tests::on;
    use super::*;

    fn column(name: &str, distinct: f64, extra: &Value) -> Column {
        let mut row = json!({
            "table_oid": 1, "column_name": name, "written": name, "orderable": true,
            "null_share": 0.0, "width": 8.0, "distinct_values": distinct, "common": null,
            "frequencies": null,
        });
        for (field, value) in extra.as_object().unwrap() {
            row[field] = value.clone();
        }
        serde_json::from_value(row).unwrap()
    }

    /// `public.t`: 100,000 rows on 1,000 pages, with columns of all kinds.
    pub(crate) fn known() -> Known {
        let table = json!({
            "oid": 1, "schema_name": "public", "relation_name": "t", "table_name": "public.t",
            "rows": 100_000.0, "pages": 1_000, "is_partition": false, "sequential_scans": 100,
            "inserted": 5, "updated": 7, "deleted": 1, "hot_updated": 3,
        });
        let common = json!({"common": ["done", "open"], "frequencies": [0.98, 0.001]});
        Known {
            tables: vec![serde_json::from_value(table).unwrap()],
            columns: vec![
                column("id", -1.0, &json!({})),
                column("customer", 5_000.0, &json!({})),
                column("kind", 4.0, &json!({})),
                column("status", 3.0, &common),
                column("at", -0.5, &json!({})),
                column("doc", -1.0, &json!({"orderable": false})),
                column("blind", 9.0, &json!({"distinct_values": null})),
            ],
            indexes: vec![on("t_pkey", &["id"], &json!({"table_oid": 1}))],
        }
    }

    pub(crate) fn statement(calls: i64, pages_per_call: i64) -> Statement {
        Statement {
            queryid: 7,
            query: "select".into(),
            calls,
            total_ms: 1_000.0,
            rows: calls,
            blocks: calls * pages_per_call,
            temp_blocks: 0,
        }
    }

    fn scan(filter: &str, rows: f64) -> Node {
        serde_json::from_value(json!({
            "Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t", "Alias": "t",
            "Filter": filter, "Plan Rows": rows,
        }))
        .unwrap()
    }

    fn keys_of(plan: &Node, known: &Known) -> Result<Vec<String>, PassedOver> {
        let asked = asked(plan, (0, &statement(50, 1_000)), known);
        match (asked.wants.as_slice(), asked.passed_over.as_slice()) {
            ([_], []) => Ok(candidates(&asked.wants, known).remove(0).keys),
            ([], [(_, why)]) => Err(*why),
            _ => panic!("{asked:?}"),
        }
    }

    fn of(filter: &str) -> Result<Vec<String>, PassedOver> {
        keys_of(&scan(filter, 10.0), &known())
    }

    #[test]
    fn equality_comes_before_a_range() {
        assert_eq!(of("(t.customer = $1)").unwrap(), ["customer"]);
        assert_eq!(
            of("((t.at > $2) AND (t.kind = $1) AND (t.customer = $3))").unwrap(),
            ["customer"]
        );
        let mut wide = known();
        wide.columns[1].distinct_values = Some(100.0);
        let plan = scan("((t.at > $2) AND (t.kind = $1) AND (t.customer = $3))", 10.0);
        assert_eq!(keys_of(&plan, &wide).unwrap(), ["customer", "kind", "at"]);
        assert_eq!(of("(t.at > (now() - '1 hour'::interval))").unwrap(), ["at"]);
    }

    #[test]
    fn what_is_not_selective_wants_none() {
        assert_eq!(of("(t.kind = $1)"), Err(PassedOver::NotSelective));
        assert_eq!(of("(t.status = 'done'::text)"), Err(PassedOver::NotSelective));
        assert_eq!(of("(t.status = 'open'::text)").unwrap(), ["status"]);
        assert_eq!(of("(t.at > $1)"), Err(PassedOver::NotSelective), "from when is not known");
    }

    #[test]
    fn what_no_btree_answers_wants_none() {
        assert_eq!(of("(t.status ~~ '%x'::text)"), Err(PassedOver::Pattern));
        assert_eq!(of("(date(t.at) = $1)"), Err(PassedOver::Wrapped));
        assert_eq!(of("((t.customer = $1) OR (t.kind = $2))"), Err(PassedOver::NoIndexAnswers));
        assert_eq!(of("(t.doc = $1)"), Err(PassedOver::NoIndexAnswers));
        assert_eq!(of("(t.blind = $1)"), Err(PassedOver::NoStatistics));
        let all = Node { filter: None, ..scan("", 1.0) };
        assert_eq!(keys_of(&all, &known()), Err(PassedOver::ReadsAll));
    }

    #[test]
    fn what_is_there_is_seen() {
        let with = |index: IndexRow| {
            let mut known = known();
            known.indexes.push(index);
            keys_of(&scan("(t.customer = $1)", 10.0), &known)
        };
        let there = json!({"table_oid": 1});
        assert_eq!(with(on("i", &["customer", "at"], &there)), Err(PassedOver::IndexThere));
        assert_eq!(
            with(on("i", &["customer"], &json!({"table_oid": 1, "method": "hash"}))),
            Err(PassedOver::IndexThere)
        );
        let partial = json!({"table_oid": 1, "is_partial": true, "predicate": "(customer > 100)"});
        assert_eq!(with(on("i", &["at"], &partial)), Err(PassedOver::PartialIndex));
        assert!(with(on("i", &["at", "customer"], &there)).is_ok());
        assert!(with(on("i", &["customer"], &json!({"table_oid": 1, "is_valid": false}))).is_ok());
    }

    #[test]
    fn what_was_carried_out_in_another_way_wants_none() {
        let plan = scan("(t.customer = $1)", 10.0);
        let quick = asked(&plan, (0, &statement(50, 5)), &known());
        assert_eq!(quick.passed_over, [(1, PassedOver::OtherPlan)]);
        let mut part = known();
        part.tables[0].is_partition = true;
        assert_eq!(keys_of(&plan, &part), Err(PassedOver::Partition));
    }

    #[test]
    fn a_limit_is_read_in_its_order() {
        let limited = |keys: &[&str], filter: Option<&str>| -> Node {
            serde_json::from_value(json!({
                "Node Type": "Limit", "Plan Rows": 20.0,
                "Plans": [{"Node Type": "Sort", "Sort Key": keys, "Plan Rows": 100_000.0,
                    "Plans": [{"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t",
                        "Alias": "t", "Filter": filter, "Plan Rows": 100_000.0}]}],
            }))
            .unwrap()
        };
        assert_eq!(keys_of(&limited(&["t.at DESC"], None), &known()).unwrap(), ["at"]);
        let filtered = limited(&["t.at DESC", "t.id"], Some("(t.kind = $1)"));
        assert_eq!(keys_of(&filtered, &known()).unwrap(), ["kind", "at desc", "id"]);
        let more = limited(&["t.at"], Some("((t.kind = $1) AND (t.status ~~ $2))"));
        assert_eq!(keys_of(&more, &known()), Err(PassedOver::NotSelective));
    }

    #[test]
    fn a_join_to_few_rows_asks_for_its_column() {
        let join = |others: f64| -> Node {
            serde_json::from_value(json!({
                "Node Type": "Hash Join", "Hash Cond": "(t.customer = c.id)", "Plan Rows": 20.0,
                "Plans": [
                    {"Node Type": "Seq Scan", "Schema": "public", "Relation Name": "t",
                     "Alias": "t", "Plan Rows": 100_000.0},
                    {"Node Type": "Hash", "Plan Rows": others, "Plans": [
                        {"Node Type": "Index Scan", "Schema": "public", "Relation Name": "c",
                         "Alias": "c", "Plan Rows": others}]},
                ],
            }))
            .unwrap()
        };
        assert_eq!(keys_of(&join(2.0), &known()).unwrap(), ["customer"]);
        assert_eq!(keys_of(&join(4_000.0), &known()), Err(PassedOver::NotSelective));
    }

    #[test]
    fn one_index_serves_several_statements() {
        let mut wide = known();
        wide.columns[1].distinct_values = Some(100.0);
        let wants: Vec<Want> = ["(t.customer = $1)", "((t.kind = $1) AND (t.customer = $2))"]
            .iter()
            .enumerate()
            .flat_map(|(place, filter)| {
                asked(&scan(filter, 10.0), (place, &statement(50, 1_000)), &wide).wants
            })
            .collect();
        let found = candidates(&wants, &wide);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(
            (found[0].keys.as_slice(), found[0].statements.as_slice()),
            (["customer".to_owned(), "kind".to_owned()].as_slice(), [0, 1].as_slice())
        );
        assert!(found[0].bytes > 2_000_000);
    }
}
