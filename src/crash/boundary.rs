//! The places where a run can be killed, and the choice among them. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// A named place that a process passes, and which passage of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Boundary {
    /// Its name: `<step>/<what>/<before or after>`.
    pub name: String,
    /// Which passage, from 1.
    pub nth: u64,
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.nth > 1 { write!(f, " (passage {})", self.nth) } else { Ok(()) }
    }
}

/// The boundaries that a process passed, in order, as its trace has them: a number and a name per line.
pub fn of_trace(trace: &str) -> Vec<Boundary> {
    let mut passages: BTreeMap<&str, u64> = BTreeMap::new();
    let names = trace.lines().filter_map(|line| line.split_once(' '));
    names
        .map(|(_, name)| {
            let nth = passages.entry(name).or_default();
            *nth += 1;
            Boundary { name: name.to_owned(), nth: *nth }
        })
        .collect()
}

/// What two runs both passed, in the order of the first. What only one of them passed (a look more at
/// something that is waited for) is a matter of chance.
pub fn common(first: Vec<Boundary>, second: &[Boundary]) -> Vec<Boundary> {
    let second: BTreeSet<&Boundary> = second.iter().collect();
    first.into_iter().filter(|boundary| second.contains(boundary)).collect()
}

/// Those whose names fit one of `only` (all, when there is none), and of these at most `sample`, spread
/// evenly.
pub fn chosen(all: Vec<Boundary>, only: &[String], sample: Option<usize>) -> Vec<Boundary> {
    let fits_one = |boundary: &Boundary| {
        only.is_empty() || only.iter().any(|pattern| fits(pattern, &boundary.name))
    };
    let fitting: Vec<Boundary> = all.into_iter().filter(fits_one).collect();
    match sample {
        Some(most) if most < fitting.len() => {
            let count = fitting.len();
            let is_taken = |place: usize| (place + 1) * most / count > place * most / count;
            let numbered = fitting.into_iter().enumerate();
            numbered.filter(|(place, _)| is_taken(*place)).map(|(_, boundary)| boundary).collect()
        }
        _ => fitting,
    }
}

/// Whether a name fits a pattern, in which `*` stands for any characters and `?` for one.
pub fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    // Which beginnings of the name fit the pattern so far.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern {
        let mut next = vec![false; name.len() + 1];
        if wanted == '*' {
            let mut any = false;
            for (place, now) in reached.iter().enumerate() {
                any |= *now;
                next[place] = any;
            }
        } else {
            for (place, found) in name.iter().enumerate() {
                next[place + 1] = reached[place] && (wanted == '?' || wanted == *found);
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or_default()
}

/// Where the process that recovers is killed: among what a recovery from the same kill passed, another
/// place for each `number`, so that all tests together cover it.
pub fn second(recovery: &[Boundary], number: usize) -> Option<&Boundary> {
    recovery.get(number.checked_rem(recovery.len())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> Vec<Boundary> {
        let lines: Vec<String> = names.iter().map(|name| format!("1 {name}")).collect();
        of_trace(&lines.join("\n"))
    }

    #[test]
    fn passages_of_a_name_are_counted() {
        let found = named(&["a/x", "b c/y", "a/x"]);
        let texts: Vec<String> = found.iter().map(Boundary::to_string).collect();
        assert_eq!(texts, ["a/x", "b c/y", "a/x (passage 2)"]);
        assert!(of_trace("torn").is_empty());
        let both = common(found, &named(&["b c/y", "a/x"]));
        assert_eq!(both, named(&["a/x", "b c/y"]));
    }

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*", ""),
            ("*/after effect", "heal/do 0/after effect"),
            ("h?al/*", "heal/x"),
            ("a", "a"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [("", "a"), ("a", "ab"), ("*/after", "x/after effect"), ("?", "")] {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_sample_is_spread_over_all() {
        let all = named(&["a", "b", "c", "d", "e", "f", "g", "h", "i"]);
        let taken = chosen(all.clone(), &[], Some(3));
        assert_eq!(taken, named(&["c", "f", "i"]));
        assert_eq!(chosen(all.clone(), &[], Some(20)), all);
        assert!(chosen(all.clone(), &["[a-b]".to_owned()], None).is_empty());
        assert_eq!(chosen(all, &["b".to_owned(), "?".to_owned()], Some(1)), named(&["i"]));
    }

    #[test]
    fn second_kills_go_round() {
        let recovery = named(&["a", "b", "c"]);
        let at = |number| second(&recovery, number).unwrap().name.as_str();
        assert_eq!([at(0), at(4), at(5)], ["a", "b", "c"]);
        assert_eq!(second(&[], 1), None);
    }
}
