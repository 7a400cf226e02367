//! Indexes that others make superfluous: exact duplicates, and those whose keys begin another one.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::index::IndexRow;

/// How an index is made superfluous by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Its keys are the first ones of the other, or the other carries more columns.
    Prefix,
    /// The other can do all that it can, by the same keys.
    Exact,
}

/// An index that can go, and the one that stays for it.
#[derive(Clone, Copy, Debug)]
pub struct Superfluous<'a> {
    /// What can go.
    pub index: &'a IndexRow,
    /// What stays.
    pub kept: &'a IndexRow,
    /// How it covers.
    pub cover: Cover,
}

/// What can go of these indexes: never all of a group, and nothing that has a duty of its own.
pub fn superfluous(indexes: &[IndexRow]) -> Vec<Superfluous<'_>> {
    let mut candidates: Vec<&IndexRow> =
        indexes.iter().filter(|index| index.is_usable() && index.duty().is_none()).collect();
    // The narrowest goes first, then the least used, then the youngest.
    candidates.sort_by_key(|index| {
        (index.keys.len() + index.included.len(), index.is_unique, index.scans, Reverse(index.oid))
    });
    let mut gone: BTreeSet<i64> = BTreeSet::new();
    let mut found = Vec::new();
    // Equal ones first: that one of two goes is right whatever is thought of the beginnings of others.
    for wanted in [Cover::Exact, Cover::Prefix] {
        let mut goes = Vec::new();
        for index in &candidates {
            if !gone.contains(&index.oid) && best(indexes, index, wanted, &gone).is_some() {
                gone.insert(index.oid);
                goes.push(*index);
            }
        }
        // What covered one may have gone itself since; what covers that, covers both.
        found.extend(goes.into_iter().filter_map(|index| {
            let kept = best(indexes, index, wanted, &gone)?;
            Some(Superfluous { index, kept, cover: wanted })
        }));
    }
    found
}

/// The best index that stays and covers this one in the wanted way.
fn best<'a>(
    indexes: &'a [IndexRow],
    index: &IndexRow,
    wanted: Cover,
    gone: &BTreeSet<i64>,
) -> Option<&'a IndexRow> {
    indexes
        .iter()
        .filter(|other| other.oid != index.oid && !gone.contains(&other.oid))
        .filter(|other| cover(index, other) == Some(wanted))
        .max_by_key(|other| {
            (other.duty().is_some(), other.is_unique, other.scans, Reverse(other.oid))
        })
}

/// How `other` can do everything that `index` can; `None` when it cannot.
fn cover(index: &IndexRow, other: &IndexRow) -> Option<Cover> {
    let comparable = other.is_usable()
        && index.table_oid == other.table_oid
        && index.method == other.method
        && index.predicate == other.predicate;
    if !comparable || !index.attributes().is_subset(&other.attributes()) {
        return None;
    }
    let (keys, others) = (index.key_list(), other.key_list());
    if index.is_unique && !is_as_unique(index, other, keys == others) {
        return None;
    }
    if keys == others {
        let same = index.included.len() == other.included.len();
        return Some(if same { Cover::Exact } else { Cover::Prefix });
    }
    (index.method == "btree" && others.starts_with(&keys)).then_some(Cover::Prefix)
}

/// Whether the other enforces the same uniqueness, and as early.
fn is_as_unique(index: &IndexRow, other: &IndexRow, same_keys: bool) -> bool {
    same_keys
        && other.is_unique
        && index.nulls_equal == other.nulls_equal
        && (other.is_immediate || !index.is_immediate)
}

/// Pairs of indexes on one column, one forwards and one backwards: a scan can run either way.
pub fn mirrored(indexes: &[IndexRow]) -> Vec<(&IndexRow, &IndexRow)> {
    let plain =
        |index: &&IndexRow| index.is_usable() && index.method == "btree" && index.keys.len() == 1;
    let mirrors = |one: &IndexRow, two: &IndexRow| {
        one.table_oid == two.table_oid
            && one.keys == two.keys
            && one.classes == two.classes
            && one.collations == two.collations
            && one.predicate == two.predicate
            && one.included == two.included
            && matches!((one.options.as_slice(), two.options.as_slice()), ([0], [3]) | ([1], [2]))
    };
    let mut pairs = Vec::new();
    for one in indexes.iter().filter(plain) {
        let twins = indexes.iter().filter(plain).filter(|two| mirrors(one, two));
        pairs.extend(twins.map(|two| (one, two)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::index::tests::on;
    use super::*;

    fn found(indexes: &[IndexRow]) -> Vec<(String, String, Cover)> {
        let name = |index: &IndexRow| index.relation_name.clone();
        let list = superfluous(indexes);
        list.iter().map(|it| (name(it.index), name(it.kept), it.cover)).collect()
    }

    fn pair(one: (&str, &str, Cover)) -> (String, String, Cover) {
        (one.0.to_owned(), one.1.to_owned(), one.2)
    }

    #[test]
    fn one_of_two_equal_ones_stays() {
        let twins = [on("a1", &["a"], &json!({"scans": 5})), on("a2", &["a"], &json!({}))];
        assert_eq!(found(&twins), [pair(("a2", "a1", Cover::Exact))]);
        let three = [
            on("a1", &["a"], &json!({})),
            on("a2", &["a"], &json!({})),
            on("ab", &["a", "b"], &json!({})),
        ];
        let expected = [pair(("a2", "a1", Cover::Exact)), pair(("a1", "ab", Cover::Prefix))];
        assert_eq!(found(&three), expected);
    }

    #[test]
    fn a_constraint_outlives_its_twin() {
        let key = json!({"is_primary": true, "is_unique": true, "constraints": ["pk"]});
        let indexes = [on("twin", &["id"], &json!({"scans": 99})), on("pk", &["id"], &key)];
        assert_eq!(found(&indexes), [pair(("twin", "pk", Cover::Exact))]);
        let unique = json!({"is_unique": true});
        let indexes = [on("u1", &["id"], &unique), on("pk", &["id"], &key)];
        assert_eq!(found(&indexes), [pair(("u1", "pk", Cover::Exact))]);
        let late = json!({"is_unique": true, "constraints": ["u"], "is_immediate": false});
        assert!(found(&[on("u1", &["id"], &unique), on("u2", &["id"], &late)]).is_empty());
    }

    #[test]
    fn what_differs_is_no_duplicate() {
        let base = || on("base", &["a"], &json!({}));
        for extra in [
            json!({"options": [3]}),
            json!({"is_partial": true, "predicate": "(b > 1)"}),
            json!({"keys": ["lower(a)"], "columns": [0]}),
            json!({"classes": [10_049]}),
            json!({"collations": [950]}),
            json!({"method": "hash"}),
            json!({"table_oid": 2}),
            json!({"is_valid": false}),
            json!({"locked": true}),
        ] {
            assert!(found(&[base(), on("other", &["a"], &extra)]).is_empty(), "{extra}");
        }
    }

    #[test]
    fn carried_columns_count() {
        let carries =
            |name: &str, included: Value| on(name, &["a"], &json!({"included": included}));
        let indexes = [carries("inc", json!(["b"])), on("ab", &["a", "b"], &json!({}))];
        assert_eq!(found(&indexes), [pair(("inc", "ab", Cover::Prefix))]);
        let indexes = [carries("inc", json!(["c"])), on("ab", &["a", "b"], &json!({}))];
        assert!(found(&indexes).is_empty());
        let indexes = [on("a", &["a"], &json!({})), carries("inc", json!(["b"]))];
        assert_eq!(found(&indexes), [pair(("a", "inc", Cover::Prefix))]);
        let crossed = [carries("x", json!(["b", "c"])), carries("y", json!(["c", "b"]))];
        assert_eq!(found(&crossed).len(), 1);
    }

    #[test]
    fn prefixes_are_for_trees_and_not_for_unique_ones() {
        let gin = |name: &str, keys: &[&str]| on(name, keys, &json!({"method": "gin"}));
        assert!(found(&[gin("a", &["a"]), gin("ab", &["a", "b"])]).is_empty());
        let unique = on("u", &["a"], &json!({"is_unique": true}));
        assert!(found(&[unique, on("ab", &["a", "b"], &json!({}))]).is_empty());
    }

    #[test]
    fn a_backward_twin_is_only_mentioned() {
        let indexes = [on("up", &["a"], &json!({})), on("down", &["a"], &json!({"options": [3]}))];
        assert!(found(&indexes).is_empty());
        let pairs = mirrored(&indexes);
        assert_eq!((pairs.len(), pairs[0].1.relation_name.as_str()), (1, "down"));
    }
}
