//! A plan as the engine walks it: scopes of nodes with their edges resolved to indices. PURE.

use std::collections::HashMap;
use std::sync::Arc;

use crate::plan::PlanBody;
use crate::plan::document::{Action, Embedded, PlannedStep};

/// The index of a scope's definition.
pub type ScopeId = usize;

/// The definition of the workflow's own steps.
pub const MAIN: ScopeId = 0;
/// The definition of the steps that run when the run failed.
pub const ON_FAILURE: ScopeId = 1;
/// The definition of the steps that run at the end of every run.
pub const ALWAYS: ScopeId = 2;

/// All scopes of a plan.
#[derive(Debug)]
pub struct Graph {
    scopes: Vec<ScopeDef>,
}

/// The steps of the workflow, of an embedded one, or of a handler.
#[derive(Debug)]
pub struct ScopeDef {
    /// The steps in topological order.
    pub nodes: Vec<NodeDef>,
    /// The embedded workflow that they belong to, when they do.
    pub embedded: Option<Box<Embedded>>,
    /// The handlers of the embedded workflow for its failure.
    pub on_failure: Option<ScopeId>,
    /// The handlers of the embedded workflow for every end of it.
    pub always: Option<ScopeId>,
    by_id: HashMap<String, usize>,
}

/// A step and its edges.
#[derive(Debug)]
pub struct NodeDef {
    /// The step.
    pub step: Arc<PlannedStep>,
    /// The steps of the same scope that it waits for.
    pub needs: Vec<usize>,
    /// The steps of the same scope that wait for it.
    pub dependents: Vec<usize>,
    /// The scope of the embedded workflow, when it is one.
    pub inner: Option<ScopeId>,
    /// The steps whose change sets it approves, when it is an approval.
    pub covers: Vec<usize>,
    /// Whether it proposes changes.
    pub is_write: bool,
}

/// A plan whose steps refer to steps that are not there: it was not made by the planner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step `{step}` of the plan needs `{needed}`, which does not stand before it")]
pub struct BadEdge {
    step: String,
    needed: String,
}

impl Graph {
    /// Resolves the edges of a plan. `is_write` says which tools propose changes.
    pub fn of(body: &PlanBody, is_write: &dyn Fn(&str) -> bool) -> Result<Self, BadEdge> {
        let mut graph = Self { scopes: Vec::new() };
        graph.scopes.resize_with(3, ScopeDef::empty);
        for (id, steps) in
            [(MAIN, &body.steps), (ON_FAILURE, &body.on_failure), (ALWAYS, &body.always)]
        {
            graph.fill(id, steps, is_write)?;
        }
        Ok(graph)
    }

    fn fill(
        &mut self,
        id: ScopeId,
        steps: &[PlannedStep],
        is_write: &dyn Fn(&str) -> bool,
    ) -> Result<(), BadEdge> {
        let mut nodes: Vec<NodeDef> = Vec::with_capacity(steps.len());
        let mut by_id: HashMap<String, usize> = HashMap::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let mut needs = Vec::with_capacity(step.needs.len());
            for need in &step.needs {
                let Some(&needed) = by_id.get(&need.step) else {
                    return Err(BadEdge { step: step.id.clone(), needed: need.step.clone() });
                };
                needs.push(needed);
                nodes[needed].dependents.push(index);
            }
            let inner = match &step.action {
                Action::Workflow(embedded) => {
                    let inner = self.add(&embedded.steps, is_write)?;
                    self.scopes[inner].embedded = Some(embedded.clone());
                    self.scopes[inner].on_failure =
                        self.add_handlers(&embedded.on_failure, is_write)?;
                    self.scopes[inner].always = self.add_handlers(&embedded.always, is_write)?;
                    Some(inner)
                }
                Action::Tool(_)
                | Action::Script { .. }
                | Action::Sql { .. }
                | Action::Approval(_)
                | Action::Wait(_)
                | Action::Verify(_) => None,
            };
            by_id.insert(step.id.clone(), index);
            let is_write = matches!(&step.action, Action::Tool(call) if is_write(&call.tool));
            nodes.push(NodeDef {
                step: Arc::new(step.clone()),
                needs,
                dependents: Vec::new(),
                inner,
                covers: Vec::new(),
                is_write,
            });
        }
        for node in &mut nodes {
            if let Action::Approval(gate) = &node.step.action {
                node.covers = gate.covers.iter().filter_map(|id| by_id.get(id).copied()).collect();
            }
        }
        self.scopes[id].nodes = nodes;
        self.scopes[id].by_id = by_id;
        Ok(())
    }

    fn add(
        &mut self,
        steps: &[PlannedStep],
        is_write: &dyn Fn(&str) -> bool,
    ) -> Result<ScopeId, BadEdge> {
        let id = self.scopes.len();
        self.scopes.push(ScopeDef::empty());
        self.fill(id, steps, is_write)?;
        Ok(id)
    }

    fn add_handlers(
        &mut self,
        steps: &[PlannedStep],
        is_write: &dyn Fn(&str) -> bool,
    ) -> Result<Option<ScopeId>, BadEdge> {
        if steps.is_empty() { Ok(None) } else { self.add(steps, is_write).map(Some) }
    }

    /// The definition of a scope.
    pub fn scope(&self, id: ScopeId) -> &ScopeDef {
        &self.scopes[id]
    }

    /// All scopes with their ids.
    pub fn scopes(&self) -> impl Iterator<Item = (ScopeId, &ScopeDef)> {
        self.scopes.iter().enumerate()
    }
}

/// A step and all that follow from it.
pub fn dependents(scope: &ScopeDef, from: usize) -> std::collections::BTreeSet<usize> {
    let mut found = std::collections::BTreeSet::from([from]);
    let mut todo = vec![from];
    while let Some(index) = todo.pop() {
        for &next in &scope.nodes[index].dependents {
            if found.insert(next) {
                todo.push(next);
            }
        }
    }
    found
}

impl ScopeDef {
    fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            embedded: None,
            on_failure: None,
            always: None,
            by_id: HashMap::new(),
        }
    }

    /// The index of a step.
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }
}
