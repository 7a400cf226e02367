//! The order of steps: edges that are written and edges that follow from expressions.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Bfs, EdgeRef as _, Reversed};

use super::source::Place;
use crate::plan::document::Need;

/// Steps and what they wait for.
#[derive(Debug, Default)]
pub(super) struct StepGraph {
    graph: DiGraph<String, Edge>,
    nodes: BTreeMap<String, NodeIndex>,
}

/// That one step waits for another.
#[derive(Clone, Copy, Debug)]
struct Edge {
    inferred: bool,
    place: Place,
}

/// Steps that wait for each other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// The steps, each waiting for the next, the first one again at the end.
    pub(super) path: Vec<String>,
    /// Where its first edge is written.
    pub(super) place: Place,
}

impl StepGraph {
    /// Adds a step. Steps are added in the order of the file.
    pub(super) fn add_step(&mut self, id: &str) {
        let node = self.graph.add_node(id.to_owned());
        self.nodes.insert(id.to_owned(), node);
    }

    /// Adds that `step` waits for `needed`, once: the edge that is written first wins.
    pub(super) fn add_edge(&mut self, step: &str, needed: &str, inferred: bool, place: Place) {
        let (Some(step), Some(needed)) = (self.nodes.get(step), self.nodes.get(needed)) else {
            return;
        };
        if !self.graph.contains_edge(*needed, *step) {
            self.graph.add_edge(*needed, *step, Edge { inferred, place });
        }
    }

    /// The cycles, one for each group of steps that wait for each other.
    pub(super) fn cycles(&self) -> Vec<Cycle> {
        let groups = tarjan_scc(&self.graph);
        let mut cycles: Vec<Cycle> =
            groups.iter().filter_map(|group| self.cycle_of(group)).collect();
        cycles.sort_by_key(|cycle| cycle.place);
        cycles
    }

    /// A shortest cycle through the first step of a strongly connected group.
    fn cycle_of(&self, group: &[NodeIndex]) -> Option<Cycle> {
        let first = *group.iter().min()?;
        let within: BTreeSet<NodeIndex> = group.iter().copied().collect();
        let mut before: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
        let mut queue = std::collections::VecDeque::from([first]);
        while let Some(node) = queue.pop_front() {
            for needed in self.graph.neighbors_directed(node, Direction::Incoming) {
                if needed == first {
                    before.insert(first, node);
                    return self.unwind(first, &before);
                }
                if within.contains(&needed) && !before.contains_key(&needed) {
                    before.insert(needed, node);
                    queue.push_back(needed);
                }
            }
        }
        None
    }

    fn unwind(&self, first: NodeIndex, before: &BTreeMap<NodeIndex, NodeIndex>) -> Option<Cycle> {
        let mut nodes = vec![first];
        let mut node = *before.get(&first)?;
        while node != first {
            nodes.push(node);
            node = *before.get(&node)?;
        }
        nodes.push(first);
        nodes.reverse();
        let (step, needed) = (*nodes.first()?, *nodes.get(1)?);
        let edge = self.graph.find_edge(needed, step)?;
        let place = self.graph.edge_weight(edge)?.place;
        Some(Cycle { path: nodes.iter().map(|node| self.graph[*node].clone()).collect(), place })
    }

    /// The steps in topological order; among those that are ready, in the order of the file.
    pub(super) fn order(&self) -> Vec<String> {
        let mut waiting: Vec<usize> = self
            .graph
            .node_indices()
            .map(|node| self.graph.neighbors_directed(node, Direction::Incoming).count())
            .collect();
        let ready = self.graph.node_indices().filter(|node| waiting[node.index()] == 0);
        let mut ready: BTreeSet<NodeIndex> = ready.collect();
        let mut order = Vec::with_capacity(waiting.len());
        while let Some(node) = ready.pop_first() {
            order.push(self.graph[node].clone());
            for dependent in self.graph.neighbors(node) {
                let left = &mut waiting[dependent.index()];
                *left -= 1;
                if *left == 0 {
                    ready.insert(dependent);
                }
            }
        }
        order
    }

    /// What a step waits for, in the order of the file.
    pub(super) fn needs(&self, step: &str) -> Vec<Need> {
        let Some(node) = self.nodes.get(step) else { return Vec::new() };
        let mut edges: Vec<_> = self
            .graph
            .edges_directed(*node, Direction::Incoming)
            .map(|edge| (edge.source(), edge.weight().inferred))
            .collect();
        edges.sort_unstable();
        let need =
            |(node, inferred): (NodeIndex, bool)| Need { step: self.graph[node].clone(), inferred };
        edges.into_iter().map(need).collect()
    }

    /// All steps that wait for a step, directly or not.
    pub(super) fn descendants(&self, step: &str) -> BTreeSet<String> {
        let Some(node) = self.nodes.get(step).copied() else { return BTreeSet::new() };
        let mut walk = Bfs::new(&self.graph, node);
        let reached = std::iter::from_fn(|| walk.next(&self.graph));
        reached.filter(|other| *other != node).map(|node| self.graph[node].clone()).collect()
    }

    /// All steps whose outputs a step uses, directly or not.
    pub(super) fn sources(&self, step: &str) -> BTreeSet<String> {
        let Some(node) = self.nodes.get(step).copied() else { return BTreeSet::new() };
        let used = self.graph.filter_map(|_, id| Some(id), |_, edge| edge.inferred.then_some(()));
        let reversed = Reversed(&used);
        let mut walk = Bfs::new(reversed, node);
        let reached = std::iter::from_fn(|| walk.next(reversed));
        reached.filter(|other| *other != node).map(|node| self.graph[node].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::source::SourceText;

    fn graph(steps: &str, edges: &[(&str, &str)]) -> StepGraph {
        let source = SourceText::new("w", "0123456789");
        let mut graph = StepGraph::default();
        steps.split(' ').for_each(|step| graph.add_step(step));
        for (at, (step, needed)) in edges.iter().enumerate() {
            graph.add_edge(step, needed, at % 2 == 1, source.place(at, at + 1));
        }
        graph
    }

    #[test]
    fn ready_steps_keep_the_order_of_the_file() {
        let graph = graph("c b a d", &[("c", "d"), ("b", "a")]);
        assert_eq!(graph.order(), ["a", "b", "d", "c"]);
        assert!(graph.cycles().is_empty());
        assert_eq!(graph.needs("b"), [Need { step: "a".into(), inferred: true }]);
    }

    #[test]
    fn a_cycle_is_shown_with_its_path() {
        let graph = graph("a b c d", &[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("d", "d")]);
        let cycles = graph.cycles();
        let paths: Vec<String> = cycles.iter().map(|cycle| cycle.path.join(" ")).collect();
        assert_eq!(paths, ["a b c a", "d d"]);
        assert_eq!(cycles[0].place.start.offset, 0);
    }

    #[test]
    fn sources_follow_inferred_edges_only() {
        let graph = graph("a b c", &[("b", "a"), ("c", "b")]);
        assert_eq!(graph.sources("c"), BTreeSet::from(["b".to_owned()]));
        assert_eq!(graph.descendants("a").len(), 2);
    }
}
