//! From sums over buckets to the keys that are missing, extra or different. PURE.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The rows of one bucket, in any order: how many there are, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::tools) struct Bucket {
    /// How many rows.
    pub(in crate::tools) rows: u64,
    /// The sum of their hashes. It does not depend on the order, and pieces of a table add up.
    pub(in crate::tools) sum: i128,
}

impl Bucket {
    /// Adds another piece of the same bucket.
    pub(in crate::tools) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// The buckets in which two sides differ.
pub(in crate::tools) fn differing(
    source: &BTreeMap<i64, Bucket>,
    target: &BTreeMap<i64, Bucket>,
) -> Vec<i64> {
    let all: BTreeSet<i64> = source.keys().chain(target.keys()).copied().collect();
    all.into_iter().filter(|bucket| source.get(bucket) != target.get(bucket)).collect()
}

/// The rows of some buckets: key and hash. A key that is there twice has all its hashes.
pub(in crate::tools) type Hashes = BTreeMap<String, Vec<i64>>;

/// The keys in which two sides differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(in crate::tools) struct Differences {
    /// Keys of the source that the target lacks.
    pub(in crate::tools) missing: BTreeSet<String>,
    /// Keys of the target that the source lacks.
    pub(in crate::tools) extra: BTreeSet<String>,
    /// Keys whose rows are not the same.
    pub(in crate::tools) different: BTreeSet<String>,
}

impl Differences {
    /// Whether there are none.
    pub(in crate::tools) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.different.is_empty()
    }

    /// How many there are.
    pub(in crate::tools) fn count(&self) -> usize {
        self.missing.len() + self.extra.len() + self.different.len()
    }

    /// Those that were seen both times, in whatever form: what differed only once was on its way.
    pub(in crate::tools) fn confirmed_by(self, again: &Self) -> Self {
        let still = |key: &String| {
            again.missing.contains(key)
                || again.extra.contains(key)
                || again.different.contains(key)
        };
        let kept = |keys: BTreeSet<String>| keys.into_iter().filter(still).collect();
        Self {
            missing: kept(self.missing),
            extra: kept(self.extra),
            different: kept(self.different),
        }
    }

    /// At most so many keys of each kind.
    pub(in crate::tools) fn cut(self, most: usize) -> Self {
        let cut = |keys: BTreeSet<String>| keys.into_iter().take(most).collect();
        Self { missing: cut(self.missing), extra: cut(self.extra), different: cut(self.different) }
    }
}

/// Compares the rows of some buckets.
pub(in crate::tools) fn differences(mut source: Hashes, mut target: Hashes) -> Differences {
    source.values_mut().chain(target.values_mut()).for_each(|hashes| hashes.sort_unstable());
    let mut found = Differences::default();
    for (key, hashes) in &source {
        match target.get(key) {
            None => found.missing.insert(key.clone()),
            Some(other) if other != hashes => found.different.insert(key.clone()),
            Some(_) => false,
        };
    }
    found.extra = target.into_keys().filter(|key| !source.contains_key(key)).collect();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn buckets(rows: &Hashes, count: i64) -> BTreeMap<i64, Bucket> {
        let mut buckets: BTreeMap<i64, Bucket> = BTreeMap::new();
        for (key, hashes) in rows {
            let bucket = i64::try_from(key.len()).unwrap() % count;
            for hash in hashes {
                buckets.entry(bucket).or_default().add(Bucket { rows: 1, sum: i128::from(*hash) });
            }
        }
        buckets
    }

    #[test]
    fn each_kind_of_difference_is_told_apart() {
        let row = |key: &str, hash| (key.to_owned(), vec![hash]);
        let source = Hashes::from([row("same", 1), row("changed", 2), row("gone", 3)]);
        let target = Hashes::from([row("same", 1), row("changed", 9), row("more", 4)]);
        let found = differences(source, target);
        assert!(found.missing.contains("gone") && found.extra.contains("more"));
        assert!(found.different.contains("changed"));
        assert_eq!(found.count(), 3);
        let again =
            Differences { missing: ["changed".to_owned()].into(), ..Differences::default() };
        let confirmed = found.confirmed_by(&again);
        assert_eq!(confirmed.count(), 1, "the rest was on its way");
        assert!(confirmed.different.contains("changed") && !confirmed.is_empty());
        assert!(confirmed.cut(0).is_empty());
    }

    proptest! {
        /// Buckets differ exactly where rows do, in whatever order and in however many pieces they come.
        #[test]
        fn buckets_find_what_differs(
            source in prop::collection::btree_map("[a-d]{1,6}", prop::collection::vec(0_i64..1000, 1), 0..40),
            target in prop::collection::btree_map("[a-d]{1,6}", prop::collection::vec(0_i64..1000, 1), 0..40),
        ) {
            let found = differing(&buckets(&source, 4), &buckets(&target, 4));
            let differences = differences(source.clone(), target);
            prop_assert!(differing(&buckets(&source, 4), &buckets(&source, 4)).is_empty());
            if found.is_empty() {
                // Equal sums of unequal rows: possible with hashes this small, not with 64 bits.
                prop_assume!(differences.is_empty());
            } else {
                prop_assert!(!differences.is_empty());
            }
        }
    }
}
