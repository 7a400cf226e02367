//! Versions of migrations and their order. PURE.

use std::cmp::Ordering;
use std::fmt;

/// A version as it is written in a file's name: `7`, `0007`, `2026.11.27`, `20261127101500`.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Version(String);

impl Version {
    /// Takes a version; `None` when it is none: digits, with single dots or hyphens between them.
    pub(in crate::tools) fn parse(text: &str) -> Option<Self> {
        let parts = text.split(['.', '-']);
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        parts.clone().all(is_number).then(|| Self(text.to_owned()))
    }

    /// Its numbers, without leading zeros: of any length, so they are compared as texts.
    fn numbers(&self) -> impl Iterator<Item = &str> {
        self.0.split(['.', '-']).map(|part| part.trim_start_matches('0'))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = |version: &Self| -> Vec<(usize, String)> {
            version.numbers().map(|part| (part.len(), part.to_owned())).collect()
        };
        keys(self).cmp(&keys(other))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_numbers_in_their_order() {
        let sorted = ["1", "2", "2.1", "2.10", "0010", "20261127", "99999999999999999999999"];
        assert!(sorted.windows(2).all(|pair| version(pair[0]) < version(pair[1])));
        assert_eq!(version("0007"), version("7"));
        for wrong in ["", "v1", "1.", ".1", "1..2", "a", "1_2"] {
            assert!(Version::parse(wrong).is_none(), "{wrong}");
        }
    }
}
