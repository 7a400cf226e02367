//! What follows from a plan alone: worked out once for all its runs that are at work here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tokio::sync::OnceCell;

use super::graph::{BadEdge, Graph};
use super::programs::Programs;
use super::state::RunState;
use crate::kernel::Digest;
use crate::plan::{Plan, PlanBody};
use crate::sop::Sandbox;
use crate::tools::Catalog;

/// What follows from a plan.
pub(super) struct Groundwork {
    /// The plan, as the journal has it.
    pub(super) plan: Arc<Plan>,
    /// What compiles its texts.
    pub(super) programs: Arc<Programs>,
    graph: Arc<Graph>,
    params: Arc<Value>,
    /// It stays known for as long as somebody works with it.
    _known: Arc<Known>,
}

impl Groundwork {
    fn new(
        plan: Plan,
        (catalog, sandbox): (&Catalog, &Sandbox),
        known: Arc<Known>,
    ) -> Result<Self, BadEdge> {
        Ok(Self {
            graph: Arc::new(graph(&plan.body, catalog)?),
            params: Arc::new(Value::Object(plan.body.params.clone())),
            programs: Arc::new(Programs::new(sandbox.clone())),
            plan: Arc::new(plan),
            _known: known,
        })
    }

    /// What is known of a run of the plan before its first event.
    pub(super) fn unbegun(&self) -> RunState {
        RunState::new(Arc::clone(&self.graph), &self.params, &self.plan.body.target)
    }
}

impl fmt::Debug for Groundwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Groundwork").field(&self.plan.id).finish()
    }
}

/// A plan as the engine walks it.
pub(super) fn graph(body: &PlanBody, catalog: &Catalog) -> Result<Graph, BadEdge> {
    Graph::of(body, &|tool: &str| catalog.find(tool).is_some_and(|tool| tool.is_write()))
}

/// What is known of a plan for as long as one of its runs is started or worked on.
#[derive(Default)]
pub(super) struct Known {
    /// Whether the journal keeps it. A plan leaves the journal a day after all its runs were sealed: not while
    /// one of them is at work.
    pub(super) kept: OnceCell<()>,
    groundwork: Mutex<Weak<Groundwork>>,
}

impl Known {
    /// What follows from the plan, while somebody works with it.
    pub(super) fn groundwork(&self) -> Option<Arc<Groundwork>> {
        self.groundwork.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// Works out what follows from the plan, as the journal has it.
    pub(super) fn work_out(
        self: &Arc<Self>,
        plan: Plan,
        with: (&Catalog, &Sandbox),
    ) -> Result<Arc<Groundwork>, BadEdge> {
        let made = Arc::new(Groundwork::new(plan, with, Arc::clone(self))?);
        let mut shared = self.groundwork.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = shared.upgrade() {
            return Ok(earlier);
        }
        *shared = Arc::downgrade(&made);
        Ok(made)
    }
}

/// The plans whose runs are started or worked on.
#[derive(Clone, Default)]
pub(super) struct KnownPlans {
    by_id: Arc<Mutex<HashMap<Digest, Weak<Known>>>>,
}

impl KnownPlans {
    /// What is known of a plan; holding it keeps it known.
    pub(super) fn hold(&self, id: &Digest) -> Arc<Known> {
        let mut by_id = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_id.get(id).and_then(Weak::upgrade) {
            return known;
        }
        by_id.retain(|_, known| known.strong_count() > 0);
        let known = Arc::<Known>::default();
        by_id.insert(id.clone(), Arc::downgrade(&known));
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let plans = KnownPlans::default();
        let (one, two) = (Digest::of_bytes(b"1"), Digest::of_bytes(b"2"));
        let first = plans.hold(&one);
        assert!(Arc::ptr_eq(&first, &plans.hold(&one)));
        assert!(!Arc::ptr_eq(&first, &plans.hold(&two)));
        drop(first);
        assert!(plans.hold(&one).groundwork().is_none());
        assert!(plans.by_id.lock().unwrap().len() <= 1);
    }
}
