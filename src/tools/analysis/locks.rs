//! Who holds whom up: the roots of the lock tree, from the direct waits alone.

use std::collections::{BTreeMap, BTreeSet};

/// Each waiting process with those that it waits for directly.
pub type Waits = BTreeMap<i32, BTreeSet<i32>>;

/// A process that holds others up and waits for nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// The process.
    pub pid: i32,
    /// Everyone who waits for it, directly or through others, with the length of the longest chain.
    pub levels: BTreeMap<i32, u32>,
}

impl Root {
    /// How many processes it holds up.
    pub fn blocked(&self) -> usize {
        self.levels.len()
    }

    /// The length of the longest chain that ends at it.
    pub fn depth(&self) -> u32 {
        self.levels.values().copied().max().unwrap_or(0)
    }
}

/// The roots, those that hold up most first. A circle (a deadlock that the server has not broken yet)
/// has no root; its lowest process stands for it.
pub fn roots(waits: &Waits) -> Vec<Root> {
    let mut blocks: BTreeMap<i32, BTreeSet<i32>> = BTreeMap::new();
    for (&waiter, blockers) in waits {
        for &blocker in blockers {
            blocks.entry(blocker).or_default().insert(waiter);
        }
    }
    let is_free = |pid: &i32| waits.get(pid).is_none_or(BTreeSet::is_empty);
    let mut roots: Vec<_> =
        blocks.keys().copied().filter(is_free).map(|pid| tree(pid, &blocks)).collect();
    let mut covered: BTreeSet<i32> =
        roots.iter().flat_map(|root| root.levels.keys().copied()).collect();
    for pid in blocks.keys().copied().filter(|pid| !is_free(pid)) {
        if !covered.contains(&pid) {
            let root = tree(pid, &blocks);
            covered.extend(root.levels.keys().copied());
            covered.insert(pid);
            roots.push(root);
        }
    }
    roots.sort_by_key(|root| (std::cmp::Reverse(root.blocked()), root.pid));
    roots
}

/// Everything above one process: first who is reached, then each one's level once all that it waits for
/// inside the tree have theirs.
fn tree(root: i32, blocks: &BTreeMap<i32, BTreeSet<i32>>) -> Root {
    let none = BTreeSet::new();
    let above = |pid: i32| blocks.get(&pid).unwrap_or(&none);
    let mut open = BTreeMap::new();
    let mut queue = vec![root];
    let mut seen = BTreeSet::from([root]);
    while let Some(pid) = queue.pop() {
        for &waiter in above(pid).iter().filter(|waiter| **waiter != root) {
            *open.entry(waiter).or_insert(0_u32) += 1;
            if seen.insert(waiter) {
                queue.push(waiter);
            }
        }
    }
    let mut levels: BTreeMap<i32, u32> = open.keys().map(|&pid| (pid, 1)).collect();
    let mut ready = vec![(root, 0)];
    while let Some((pid, level)) = ready.pop() {
        for &waiter in above(pid) {
            let (Some(left), Some(known)) = (open.get_mut(&waiter), levels.get_mut(&waiter)) else {
                continue;
            };
            *known = (*known).max(level + 1);
            *left -= 1;
            if *left == 0 {
                ready.push((waiter, *known));
            }
        }
    }
    Root { pid: root, levels }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(edges: &[(i32, &[i32])]) -> Waits {
        edges.iter().map(|(pid, by)| (*pid, by.iter().copied().collect())).collect()
    }

    #[test]
    fn the_longest_chain_counts() {
        // 1 idle in transaction <- 2 updates <- 3 alters (waits for both) <- 4 selects
        let found = roots(&waits(&[(2, &[1]), (3, &[1, 2]), (4, &[3])]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pid, found[0].blocked(), found[0].depth()), (1, 3, 3));
        assert_eq!(found[0].levels, BTreeMap::from([(2, 1), (3, 2), (4, 3)]));
    }

    #[test]
    fn two_roots_can_hold_up_the_same_process() {
        let found = roots(&waits(&[(3, &[1, 2]), (4, &[2])]));
        let summary: Vec<_> = found.iter().map(|root| (root.pid, root.blocked())).collect();
        assert_eq!(summary, [(2, 2), (1, 1)]);
    }

    #[test]
    fn a_circle_is_reported_once() {
        let found = roots(&waits(&[(7, &[5]), (5, &[7]), (9, &[7])]));
        let summary: Vec<_> = found.iter().map(|root| (root.pid, root.blocked())).collect();
        assert_eq!(summary, [(5, 2)]);
        assert!(roots(&Waits::new()).is_empty());
    }

    #[test]
    fn a_long_queue_needs_no_deep_stack() {
        let long: Waits = (1..2_000).map(|pid| (pid, BTreeSet::from([pid - 1]))).collect();
        let found = roots(&long);
        assert_eq!((found[0].pid, found[0].depth()), (0, 1_999));
    }
}
