//! Puts things into an order in which each comes after what it needs. PURE.

use std::collections::{BTreeMap, BTreeSet};

/// Sorts `nodes` so that each comes after those of them that it needs; where nothing decides, by their
/// own order. A circle is cut at its smallest member.
pub(super) fn sorted<'a, T: Ord>(
    nodes: &BTreeSet<&'a T>,
    needs: impl Fn(&'a T) -> Vec<&'a T>,
) -> Vec<&'a T> {
    let mut waits: BTreeMap<&T, usize> = BTreeMap::new();
    let mut needed_by: BTreeMap<&T, Vec<&'a T>> = BTreeMap::new();
    for node in nodes {
        let mut own: Vec<&T> = needs(node);
        own.retain(|need| need != node && nodes.contains(need));
        own.sort();
        own.dedup();
        waits.insert(node, own.len());
        for need in own {
            needed_by.entry(need).or_default().push(node);
        }
    }
    let mut ready: BTreeSet<&'a T> =
        nodes.iter().copied().filter(|n| waits.get(n) == Some(&0)).collect();
    let mut left: BTreeSet<&'a T> = nodes.iter().copied().collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        if !left.remove(next) {
            continue;
        }
        order.push(next);
        for waiting in needed_by.get(next).into_iter().flatten() {
            if let Some(count) = waits.get_mut(waiting) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.insert(waiting);
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_after_what_it_needs() {
        let all = [1, 2, 3, 4, 5];
        let nodes: BTreeSet<&i32> = all.iter().collect();
        let needs = |node: &i32| match node {
            1 => vec![&all[3]],
            2 => vec![&all[0], &all[4]],
            _ => Vec::new(),
        };
        assert_eq!(sorted(&nodes, needs), [&3, &4, &1, &5, &2]);
    }

    #[test]
    fn a_circle_is_cut() {
        let all = [1, 2, 3];
        let nodes: BTreeSet<&i32> = all.iter().collect();
        let needs = |node: &i32| match node {
            1 => vec![&all[1]],
            2 => vec![&all[0]],
            _ => Vec::new(),
        };
        assert_eq!(sorted(&nodes, needs), [&3, &1, &2]);
    }
}
