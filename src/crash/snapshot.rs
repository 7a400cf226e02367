//! What a run left, and how that differs from what undisturbed runs left. PURE.
//!
//! What differs between two undisturbed runs (times, random values, measurements) says nothing about
//! crashes: it is not compared, and listed as such.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::schema;

/// A row, by the names of its columns.
pub type Row = Map<String, Value>;

/// What is there of one thing.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The rows of a table, in no order.
    Rows(Vec<Row>),
    /// A table with too many rows to keep: how many, and for each column a sum over its values' hashes.
    Sums {
        /// How many rows there are.
        rows: u64,
        /// By the name of the column.
        columns: BTreeMap<String, String>,
    },
    /// A document.
    Document(Value),
    /// Texts, each with how often it is there.
    Texts(BTreeMap<String, u64>),
    /// The structure of a database.
    Structure(Box<schema::Snapshot>),
}

/// All that a run left, by names such as `table public.orders`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// What is there.
    pub contents: BTreeMap<String, Content>,
    /// What is not compared, and why.
    pub left_out: BTreeMap<String, String>,
    /// Ids that a service drew, each with what it stands for.
    pub drawn: BTreeMap<String, String>,
}

impl Snapshot {
    /// The same, with names that are another for each run replaced by what they stand for: those given, and
    /// the ids that a service drew.
    #[must_use]
    pub fn without_names(self, names: &[(&str, &str)]) -> Self {
        let drawn = self.drawn.iter().map(|(id, word)| (id.as_str(), word.as_str()));
        let names: Vec<(&str, &str)> = names.iter().copied().chain(drawn).collect();
        let plain = |text: &str| {
            names.iter().fold(text.to_owned(), |text, (name, word)| text.replace(name, word))
        };
        let contents = self.contents.into_iter().map(|(place, content)| {
            let content = match content {
                Content::Rows(rows) => Content::Rows(
                    rows.into_iter()
                        .map(|row| {
                            row.into_iter()
                                .map(|(key, value)| (key, renamed(value, &plain)))
                                .collect()
                        })
                        .collect(),
                ),
                Content::Document(document) => Content::Document(renamed(document, &plain)),
                Content::Texts(texts) => {
                    let mut all: BTreeMap<String, u64> = BTreeMap::new();
                    for (text, number) in texts {
                        *all.entry(plain(&text)).or_default() += number;
                    }
                    Content::Texts(all)
                }
                other => other,
            };
            (plain(&place), content)
        });
        let left_out = self.left_out.into_iter().map(|(place, why)| (plain(&place), why));
        Self { contents: contents.collect(), left_out: left_out.collect(), drawn: BTreeMap::new() }
    }
}

fn renamed(value: Value, plain: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text)),
        Value::Array(all) => all.into_iter().map(|value| renamed(value, plain)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (plain(&name), renamed(value, plain))).collect()
        }
        other => other,
    }
}

/// Something that is not as an undisturbed run left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: `table public.orders`.
    pub place: String,
    /// How it differs.
    pub what: String,
}

/// What is not compared of something.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unsteady {
    Whole,
    /// Columns of rows, pointers into a document, or objects of a structure.
    Parts(BTreeSet<String>),
}

/// What undisturbed runs left.
#[derive(Clone, Debug)]
pub struct Reference {
    snapshot: Snapshot,
    unsteady: BTreeMap<String, Unsteady>,
}

/// How many differences of one thing are told.
const MOST_TOLD: usize = 5;

impl Reference {
    /// What two undisturbed runs left: only what they agree on is compared.
    pub fn of(first: Snapshot, second: &Snapshot) -> Self {
        let names: BTreeSet<&String> =
            first.contents.keys().chain(second.contents.keys()).collect();
        let mut unsteady = BTreeMap::new();
        for name in names {
            let found = match (first.contents.get(name), second.contents.get(name)) {
                (Some(one), Some(other)) => unsteady_of(one, other),
                _ => Some(Unsteady::Whole),
            };
            unsteady.extend(found.map(|found| (name.clone(), found)));
        }
        Self { snapshot: first, unsteady }
    }

    /// What is not compared, each with the reason.
    pub fn not_compared(&self) -> BTreeMap<String, String> {
        let why = "differs between two undisturbed runs";
        let mut all = self.snapshot.left_out.clone();
        for (name, unsteady) in &self.unsteady {
            match unsteady {
                Unsteady::Whole => drop(all.insert(name.clone(), why.to_owned())),
                Unsteady::Parts(parts) => {
                    all.extend(
                        parts.iter().map(|part| (format!("{name}: {part}"), why.to_owned())),
                    );
                }
            }
        }
        all
    }

    /// What differs in what another run left.
    pub fn compare(&self, other: &Snapshot) -> Vec<Difference> {
        let names: BTreeSet<&String> =
            self.snapshot.contents.keys().chain(other.contents.keys()).collect();
        let mut all = Vec::new();
        for name in names {
            let nothing = BTreeSet::new();
            let parts = match self.unsteady.get(name) {
                Some(Unsteady::Whole) => continue,
                Some(Unsteady::Parts(parts)) => parts,
                None => &nothing,
            };
            let found = match (self.snapshot.contents.get(name), other.contents.get(name)) {
                (Some(one), Some(other)) => differences(one, other, parts),
                (Some(_), None) => vec!["is missing".to_owned()],
                (None, _) => vec!["is there, and an undisturbed run leaves none".to_owned()],
            };
            all.extend(found.into_iter().map(|what| Difference { place: name.clone(), what }));
        }
        all
    }
}

/// What of two contents that should be equal is not.
fn unsteady_of(one: &Content, other: &Content) -> Option<Unsteady> {
    let parts: BTreeSet<String> = match (one, other) {
        (Content::Rows(one), Content::Rows(other)) if one.len() == other.len() => {
            let names: BTreeSet<&String> = one.iter().chain(other).flat_map(Map::keys).collect();
            let differs = |name: &&&String| column(one, name) != column(other, name);
            names.iter().filter(differs).map(|name| (**name).clone()).collect()
        }
        (
            Content::Sums { rows: one_rows, columns: one },
            Content::Sums { rows: other_rows, columns: other },
        ) if one_rows == other_rows => {
            let names = one.keys().chain(other.keys());
            names.filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
        }
        (Content::Document(one), Content::Document(other)) => {
            let mut pointers = BTreeMap::new();
            walk(one, other, String::new(), &mut pointers);
            pointers.into_keys().collect()
        }
        (Content::Structure(one), Content::Structure(other)) => {
            schema::compare(one, other).differences.into_iter().map(|found| found.object).collect()
        }
        (one, other) if one == other => return None,
        _ => return Some(Unsteady::Whole),
    };
    // Every column by itself can agree where the rows do not.
    if !differences(one, other, &parts).is_empty() {
        return Some(Unsteady::Whole);
    }
    (!parts.is_empty()).then_some(Unsteady::Parts(parts))
}

/// The values of a column, in order.
fn column(rows: &[Row], name: &str) -> Vec<String> {
    let text = |row: &Row| row.get(name).unwrap_or(&Value::Null).to_string();
    let mut values: Vec<String> = rows.iter().map(text).collect();
    values.sort_unstable();
    values
}

/// How two contents differ, `ignored` parts aside.
fn differences(one: &Content, other: &Content, ignored: &BTreeSet<String>) -> Vec<String> {
    match (one, other) {
        (Content::Rows(one), Content::Rows(other)) => {
            texts(&counted(one, ignored), &counted(other, ignored), "row")
        }
        (
            Content::Sums { rows: one_rows, columns: one },
            Content::Sums { rows: other_rows, columns: other },
        ) => {
            if one_rows != other_rows {
                return vec![format!("{other_rows} rows instead of {one_rows}")];
            }
            let names = one.keys().chain(other.keys()).collect::<BTreeSet<_>>().into_iter();
            let differs =
                |name: &&String| !ignored.contains(*name) && one.get(*name) != other.get(*name);
            let told = |name: &String| {
                format!("column `{name}` holds other values, in as many rows ({one_rows})")
            };
            names.filter(differs).map(told).collect()
        }
        (Content::Document(one), Content::Document(other)) => {
            let mut found = BTreeMap::new();
            walk(one, other, String::new(), &mut found);
            found.retain(|pointer, _| !ignored.contains(pointer));
            found.into_iter().map(|(pointer, what)| format!("{pointer} {what}")).collect()
        }
        (Content::Texts(one), Content::Texts(other)) => texts(one, other, "entry"),
        (Content::Structure(one), Content::Structure(other)) => schema::compare(one, other)
            .differences
            .into_iter()
            .filter(|found| !ignored.contains(&found.object))
            .map(|found| {
                let word = match found.action {
                    schema::Action::Added => "is there, and an undisturbed run leaves none",
                    schema::Action::Removed => "is missing",
                    schema::Action::Changed => "is defined otherwise",
                };
                let kind = serde_json::to_value(found.kind).unwrap_or_default();
                format!("{} {} {word}", kind.as_str().unwrap_or("object"), found.object)
            })
            .collect(),
        (Content::Sums { rows, .. }, Content::Rows(found)) => {
            vec![format!("{} rows instead of {rows}", found.len())]
        }
        (Content::Rows(rows), Content::Sums { rows: found, .. }) => {
            vec![format!("{found} rows instead of {}", rows.len())]
        }
        _ => vec!["is another kind of thing".to_owned()],
    }
}

/// Rows as texts, without some columns.
fn counted(rows: &[Row], ignored: &BTreeSet<String>) -> BTreeMap<String, u64> {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        let kept = row.iter().filter(|(name, _)| !ignored.contains(*name));
        let kept: Row = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        *counted.entry(Value::Object(kept).to_string()).or_default() += 1;
    }
    counted
}

fn texts(one: &BTreeMap<String, u64>, other: &BTreeMap<String, u64>, noun: &str) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let number = |all: &BTreeMap<String, u64>, text: &String| all.get(text).copied().unwrap_or(0);
    let told = |text: &String| match (number(one, text), number(other, text)) {
        (before, after) if before == after => None,
        (before, 0) => {
            Some(format!("{noun} missing ({before} times in an undisturbed run): {text}"))
        }
        (0, after) => Some(format!("{noun} in excess ({after} times): {text}")),
        (before, after) => Some(format!("{noun} {after} times instead of {before}: {text}")),
    };
    let mut all: Vec<String> = names.into_iter().filter_map(told).collect();
    let rest = all.len().saturating_sub(MOST_TOLD);
    all.truncate(MOST_TOLD);
    all.extend((rest > 0).then(|| format!("and {rest} more")));
    all
}

/// Where two documents differ, by pointer.
fn walk(one: &Value, other: &Value, at: String, found: &mut BTreeMap<String, String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let (one, other) = (one.get(name), other.get(name));
                let (one, other) = (one.unwrap_or(&Value::Null), other.unwrap_or(&Value::Null));
                walk(one, other, format!("{at}/{name}"), found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => {
            found.insert(at, format!("is {other} instead of {one}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(rows: &[Value]) -> Content {
        Content::Rows(rows.iter().map(|row| row.as_object().unwrap().clone()).collect())
    }

    fn left(contents: &[(&str, Content)]) -> Snapshot {
        let contents = contents.iter().map(|(name, content)| ((*name).to_owned(), content.clone()));
        Snapshot { contents: contents.collect(), ..Snapshot::default() }
    }

    fn compared(one: &Content, two: &Content, other: &Content) -> (Vec<String>, Vec<String>) {
        let reference = Reference::of(left(&[("x", one.clone())]), &left(&[("x", two.clone())]));
        let found = reference.compare(&left(&[("x", other.clone())]));
        let not_compared = reference.not_compared().into_keys().collect();
        (found.into_iter().map(|found| found.what).collect(), not_compared)
    }

    #[test]
    fn the_order_of_rows_is_no_difference_and_their_number_is() {
        let two = rows(&[json!({"a": 1}), json!({"a": 2})]);
        let turned = rows(&[json!({"a": 2}), json!({"a": 1})]);
        assert_eq!(compared(&two, &turned, &two), (vec![], vec![]));
        let more = rows(&[json!({"a": 1}), json!({"a": 2}), json!({"a": 2})]);
        assert_eq!(compared(&two, &two, &more).0, [r#"row 2 times instead of 1: {"a":2}"#]);
        let (found, _) = compared(&more, &more, &rows(&[json!({"a": 1}), json!({"a": 3})]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("missing (2 times") && found[1].contains("in excess"));
    }

    #[test]
    fn what_undisturbed_runs_do_not_agree_on_is_left_out_and_said() {
        let one = rows(&[json!({"a": 1, "at": "09:00"})]);
        let two = rows(&[json!({"a": 1, "at": "09:01"})]);
        let third = rows(&[json!({"a": 1, "at": "09:02"})]);
        assert_eq!(compared(&one, &two, &third), (vec![], vec!["x: at".to_owned()]));
        let wrong = rows(&[json!({"a": 2, "at": "09:02"})]);
        assert_eq!(compared(&one, &two, &wrong).0.len(), 2);
        // Each column agrees, the rows do not: nothing can be said of them.
        let one = rows(&[json!({"a": 1, "b": 1}), json!({"a": 2, "b": 2})]);
        let two = rows(&[json!({"a": 1, "b": 2}), json!({"a": 2, "b": 1})]);
        assert_eq!(compared(&one, &two, &one), (vec![], vec!["x".to_owned()]));
        let fewer = rows(&[json!({"a": 1, "b": 1})]);
        assert_eq!(compared(&one, &fewer, &two), (vec![], vec!["x".to_owned()]));
    }

    #[test]
    fn an_id_that_was_drawn_is_known_by_what_it_stands_for() {
        let run = |id: &str, copy: &str| {
            let role = Content::Document(json!({ "name": format!("{copy}/roles/{id}") }));
            let mut left = left(&[(&format!("api {copy}/roles/{id}"), role)]);
            left.drawn.insert(id.to_owned(), "app".to_owned());
            left.without_names(&[(copy, "COPY")])
        };
        let (one, two) = (run("rol-0011", "tmp-1"), run("rol-2233", "tmp-2"));
        assert_eq!(one, two);
        let reference = Reference::of(one, &two);
        assert_eq!(reference.compare(&run("rol-4455", "tmp-3")), []);
        assert!(reference.not_compared().is_empty());
        let none = reference.compare(&left(&[]));
        assert_eq!(none.len(), 1, "{none:?}");
        assert_eq!(none[0].place, "api COPY/roles/app");
    }

    #[test]
    fn documents_differ_at_a_pointer() {
        let one = Content::Document(json!({"spec": {"a": 1, "t": "x"}}));
        let two = Content::Document(json!({"spec": {"a": 1, "t": "y"}}));
        let other = Content::Document(json!({"spec": {"a": 2, "t": "z", "b": true}}));
        let (found, not_compared) = compared(&one, &two, &other);
        assert_eq!(found, ["/spec/a is 2 instead of 1", "/spec/b is true instead of null"]);
        assert_eq!(not_compared, ["x: /spec/t"]);
    }

    #[test]
    fn sums_tell_rows_and_columns() {
        let sums = |rows, a: &str, b: &str| Content::Sums {
            rows,
            columns: [("a".to_owned(), a.to_owned()), ("b".to_owned(), b.to_owned())].into(),
        };
        let (one, two) = (sums(30_000, "1", "7"), sums(30_000, "1", "8"));
        assert_eq!(
            compared(&one, &two, &sums(30_000, "1", "9")),
            (vec![], vec!["x: b".to_owned()])
        );
        assert_eq!(
            compared(&one, &one, &sums(30_001, "1", "7")).0,
            ["30001 rows instead of 30000"]
        );
        assert!(compared(&one, &one, &sums(30_000, "2", "7")).0[0].contains("column `a`"));
        let few = rows(&[json!({"a": 1})]);
        assert_eq!(compared(&one, &one, &few).0, ["1 rows instead of 30000"]);
    }

    #[test]
    fn what_is_gone_or_new_is_told() {
        let texts = |all: &[(&str, u64)]| {
            Content::Texts(all.iter().map(|(text, number)| ((*text).to_owned(), *number)).collect())
        };
        let reference = Reference::of(
            left(&[("a", texts(&[("m", 1)])), ("b", texts(&[]))]),
            &left(&[("a", texts(&[("m", 1)])), ("b", texts(&[]))]),
        );
        let found = reference.compare(&left(&[("a", texts(&[("m", 2)])), ("c", texts(&[]))]));
        let told: Vec<String> =
            found.into_iter().map(|found| format!("{} {}", found.place, found.what)).collect();
        assert_eq!(told[0], "a entry 2 times instead of 1: m");
        assert_eq!(told[1], "b is missing");
        assert!(told[2].starts_with("c is there"));
    }
}
