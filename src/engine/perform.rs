//! Performing commands: what is quick is done in the loop, what waits for the outside gets a task.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::carrying::stuck;
use super::decide::{Command, RUN_TIMEOUT};
use super::environment::{Place, scope_for};
use super::executor::{ExecuteError, Executor};
use super::proposing::SoFar;
use super::state::{NodeId, Phase, RunState};
use crate::journal::event::{Decision, Event, Item, Outcome, Output, Principal, Rows, SkipReason};
use crate::journal::store::Durability::{Buffered, Synced};
use crate::kernel::{Failure, Span, Target};
use crate::plan::document::{Action, Embedded, Wait};
use crate::sop::{Evaluated, Reference, Scope};

impl Executor {
    /// Performs a command. Says whether the state moved; a task that was started moves it later.
    pub(super) async fn perform(&mut self, command: Command) -> Result<bool, ExecuteError> {
        let (events, durability) = match command {
            Command::Lock(lock) => return self.lock(&lock, None).await,
            Command::LockStep(id) => return self.lock_step(id).await,
            Command::Condition(id) => (self.condition(id), Buffered),
            Command::Skip(id, reason) => {
                let step = self.state.nodes[id].key.clone();
                (vec![Event::StepSkipped { step, reason }], Buffered)
            }
            Command::Items(id) => (vec![self.or_failed(id, Self::items)], Buffered),
            Command::Collect(id) => (vec![self.collect(id)], Buffered),
            Command::OpenScope(id) => (vec![self.or_failed(id, Self::open_scope)], Buffered),
            Command::CloseScope(id) => (vec![self.or_failed(id, Self::close_scope)], Buffered),
            Command::Attempt(id) => return self.attempt(id).await,
            Command::Propose(id) => return self.propose(id).await,
            Command::Request { node, covers, direction } => {
                return self.request(node, &covers, direction).await;
            }
            Command::Expire { step, approval } => {
                let digest = self.state.approvals[approval].request.digest.clone();
                let by = Principal { name: "lakeops".to_owned(), from: "expiry".to_owned() };
                let reason = "nobody decided in time".to_owned();
                let decision = Decision::Expired;
                let expired = Event::ApprovalDecided { step, digest, decision, by, reason };
                let is_open = |state: &RunState| state.approvals[approval].decided.is_none();
                self.record_decision(expired, is_open).await?;
                return Ok(true);
            }
            Command::Fail(id, failure) => (vec![self.failed(id, failure)], Synced),
            Command::Pass(id) => (vec![self.pass(id)], Buffered),
            Command::Apply(id) => return Ok(self.apply(id, false)),
            Command::Drain(id) => return Ok(self.apply(id, true)),
            Command::Abandon(id) => (vec![self.abandon(id)], Buffered),
            Command::StartWait(id) if self.preview => (vec![self.not_waited(id)], Buffered),
            Command::StartWait(id) => (vec![self.or_failed(id, Self::start_wait)], Buffered),
            Command::Poll(id) => return self.poll(id).await,
            Command::EndTimer(id) => (vec![self.end_timer(id)], Buffered),
            Command::BeginEnding { outcome, compensate, scope, failure } => {
                // Tasks at work stop between changes; those of handlers and undoings begin afresh.
                self.stop.cancel();
                self.stop = tokio_util::sync::CancellationToken::new();
                let overdue = failure.as_ref().is_some_and(|failure| failure.code == RUN_TIMEOUT);
                if outcome == Outcome::Cancelled || overdue {
                    self.abort.cancel();
                    self.abort = tokio_util::sync::CancellationToken::new();
                }
                (vec![Event::EndingBegan { outcome, compensate, scope, failure }], Buffered)
            }
            Command::ProposeUndo(id) => return self.propose_undo(id).await,
            Command::Undo(id) => return Ok(self.undo(id)),
            Command::LeaveUndone(id, failure) => (self.leave_undone(id, &failure), Synced),
            Command::Stick(why) => (stuck(&self.run, None, why).into(), Synced),
            Command::Finish { outcome, compensation } => {
                self.sessions.close().await;
                let outputs =
                    if outcome == Outcome::Succeeded { self.outputs() } else { Value::Null };
                (vec![Event::RunFinished { outcome, compensation, outputs }], Synced)
            }
        };
        self.record(events, durability).await?;
        Ok(true)
    }

    // ---- expressions -------------------------------------------------------------------------

    fn scope(&self, place: Place, references: &[Reference], extra: &[(&str, Value)]) -> Scope {
        scope_for((&self.run, &self.plan.body, &self.state), place, references, extra)
    }

    pub(super) fn fill(
        &self,
        place: Place,
        template: &Value,
        extra: &[(&str, Value)],
    ) -> Result<Value, Failure> {
        let filled =
            self.programs.template(template, &|references| self.scope(place, references, extra))?;
        Ok(filled.value)
    }

    pub(super) fn evaluate(&self, place: Place, text: &str) -> Result<Evaluated, Failure> {
        self.programs.expression(text, &|references| self.scope(place, references, &[]))
    }

    fn arguments(&self, id: NodeId) -> Result<Value, Failure> {
        let place = Place::of(&self.state, id);
        match &self.state.def(id).step.action {
            Action::Tool(call) | Action::Wait(Wait::Condition { call, .. }) => {
                self.fill(place, &call.with, &[])
            }
            Action::Script { with, .. } => self.fill(place, with, &[]),
            Action::Sql { with, .. } => self.fill(place, &json!(with), &[]),
            Action::Verify(verify) => self.fill(place, &verify.call.with, &[]),
            Action::Wait(Wait::Timer { .. } | Wait::Event { .. })
            | Action::Workflow(_)
            | Action::Approval(_) => Ok(Value::Null),
        }
    }

    pub(super) fn target(&self, id: NodeId) -> Result<Target, Failure> {
        let inherited = &self.state.instances[self.state.nodes[id].scope].target;
        match &self.state.def(id).step.target {
            None => Ok(inherited.clone()),
            Some(template) => {
                let filled = self.fill(Place::of(&self.state, id), template, &[])?;
                merge_target(inherited, filled)
            }
        }
    }

    /// A failure before a try: the arguments or the target could not be worked out.
    pub(super) fn failed(&self, id: NodeId, failure: Failure) -> Event {
        let node = &self.state.nodes[id];
        Event::AttemptFailed {
            step: node.key.clone(),
            attempt: node.attempts.max(1),
            failure,
            retry_at: None,
        }
    }

    fn or_failed(
        &self,
        id: NodeId,
        work: impl FnOnce(&Self, NodeId) -> Result<Event, Failure>,
    ) -> Event {
        work(self, id).unwrap_or_else(|failure| self.failed(id, failure))
    }

    fn outputs(&self) -> Value {
        let place = Place { instance: super::graph::MAIN, node: None };
        let outputs = self.plan.body.outputs.iter().map(|(name, text)| {
            let value = match self.evaluate(place, text) {
                Ok(evaluated) => evaluated.value,
                Err(failure) => json!({ "error": failure.message }),
            };
            (name.clone(), value)
        });
        Value::Object(outputs.collect())
    }

    // ---- order -------------------------------------------------------------------------------

    fn condition(&self, id: NodeId) -> Vec<Event> {
        let step = self.state.nodes[id].key.clone();
        let place = Place::of(&self.state, id);
        let text = self.state.def(id).step.when.clone().unwrap_or_default();
        let judged =
            self.programs.condition(&text, &|references| self.scope(place, references, &[]));
        match judged {
            Err(failure) => vec![self.failed(id, failure)],
            Ok((result, evaluated)) => {
                let seen = evaluated.seen;
                let mut events =
                    vec![Event::ConditionEvaluated { step: step.clone(), result, seen }];
                if !result {
                    events.push(Event::StepSkipped { step, reason: SkipReason::Condition });
                }
                events
            }
        }
    }

    fn items(&self, id: NodeId) -> Result<Event, Failure> {
        let invalid = |text: String| Failure::permanent("engine::invalid_items", text);
        let Some(for_each) = &self.state.def(id).step.for_each else {
            return Err(invalid("the step has no `for_each`".to_owned()));
        };
        let place = Place::of(&self.state, id);
        let Value::Array(values) = self.fill(place, &for_each.items, &[])? else {
            return Err(invalid("`for_each.in` is not a list".to_owned()));
        };
        let mut items: Vec<Item> = Vec::with_capacity(values.len());
        let mut keys = std::collections::HashSet::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            let extra = [("item", value.clone()), ("index", json!(index))];
            let key = match self.fill(place, &json!(for_each.key), &extra)? {
                Value::String(key) => key,
                Value::Number(number) => number.to_string(),
                other => return Err(invalid(format!("key {other} of item {index} is not a text"))),
            };
            if key.is_empty() || !keys.insert(key.clone()) {
                let text =
                    format!("item {index} has the key `{key}`; keys are unique and not empty");
                return Err(invalid(text));
            }
            items.push(Item { key, value });
        }
        Ok(Event::ItemsListed { step: self.state.nodes[id].key.clone(), items: items.into() })
    }

    fn collect(&self, id: NodeId) -> Event {
        let node = &self.state.nodes[id];
        let items = node.item_nodes();
        let ended = |wanted: fn(&Phase) -> bool| {
            let keys = items.iter().map(|&item| &self.state.nodes[item]);
            keys.filter(|item| wanted(&item.phase)).map(|item| item.key.clone()).collect::<Vec<_>>()
        };
        let failed = ended(|phase| *phase == Phase::Failed);
        let left = ended(|phase| matches!(phase, Phase::Skipped(_)));
        if failed.is_empty() && left.is_empty() {
            let outputs = items.iter().filter_map(|&item| self.state.nodes[item].output.as_ref());
            return Event::StepSucceeded {
                step: node.key.clone(),
                output: Output::list(outputs),
                history: Rows::default(),
                seen: Vec::new(),
                fact: None,
            };
        }
        let first = items.iter().find_map(|&item| self.state.nodes[item].failure.clone());
        let why = first.map(|failure| format!(": {}", failure.message)).unwrap_or_default();
        let text = format!(
            "{} of {} items failed and {} did not run{why}",
            failed.len(),
            items.len(),
            left.len()
        );
        self.failed(id, Failure::permanent("engine::items_failed", text))
    }

    fn embedded(&self, id: NodeId) -> Result<&Embedded, Failure> {
        match &self.state.def(id).step.action {
            Action::Workflow(embedded) => Ok(embedded),
            _ => Err(Failure::permanent("engine::no_workflow", "the step embeds no workflow")),
        }
    }

    /// The parameters and the target of the workflow that a step embeds.
    pub(super) fn child_scope(&self, id: NodeId) -> Result<(Value, Target), Failure> {
        let params = self.fill(Place::of(&self.state, id), &self.embedded(id)?.params, &[])?;
        let mut target = self.target(id)?;
        if let Some(template) = &self.embedded(id)?.target {
            let extra = [("params", params.clone()), ("target", json!(target))];
            let filled = self.fill(Place::of(&self.state, id), template, &extra)?;
            target = merge_target(&target, filled)?;
        }
        Ok((params, target))
    }

    fn open_scope(&self, id: NodeId) -> Result<Event, Failure> {
        let (params, target) = self.child_scope(id)?;
        Ok(Event::ScopeOpened { step: self.state.nodes[id].key.clone(), params, target })
    }

    fn close_scope(&self, id: NodeId) -> Result<Event, Failure> {
        let step = self.state.nodes[id].key.clone();
        let Some(inner) = self.state.nodes[id].inner else {
            return Err(Failure::permanent("engine::no_workflow", "the step has not begun"));
        };
        let instance = &self.state.instances[inner];
        let named = |child: NodeId| (child, &self.state.nodes[child]);
        let nodes = || instance.nodes.iter().copied().map(named);
        let always = instance.always.map(|always| &self.state.instances[always].nodes);
        let all = nodes().chain(always.into_iter().flatten().copied().map(named));
        let failed = |(child, node): &(NodeId, &super::state::Node)| {
            node.phase == Phase::Failed && !self.state.def(*child).step.allow_failure
        };
        if let Some((_, child)) = { all }.find(failed) {
            let why = child.failure.as_ref().map(|f| f.message.clone()).unwrap_or_default();
            let text = format!("step `{}` failed: {why}", child.key);
            return Err(Failure::permanent("engine::child_failed", text));
        }
        if nodes().any(|(_, node)| node.phase == Phase::Skipped(SkipReason::RunEnding)) {
            return Err(Failure::permanent(
                "engine::run_ending",
                "the run ended before it was done",
            ));
        }
        let place = Place { instance: inner, node: None };
        let mut outputs = Map::new();
        for (name, text) in &self.embedded(id)?.outputs {
            outputs.insert(name.clone(), self.evaluate(place, text)?.value);
        }
        Ok(Event::StepSucceeded {
            step,
            output: Value::Object(outputs).into(),
            history: Rows::default(),
            seen: Vec::new(),
            fact: None,
        })
    }

    fn abandon(&self, id: NodeId) -> Event {
        let node = &self.state.nodes[id];
        let applied = node.work.as_deref().is_some_and(super::state::Work::has_applied);
        if node.attempts == 0 && !applied {
            let step = node.key.clone();
            return Event::StepSkipped { step, reason: SkipReason::RunEnding };
        }
        let text = "the run ended before the step was done";
        self.failed(
            id,
            node.failure
                .as_deref()
                .cloned()
                .unwrap_or_else(|| Failure::permanent("engine::run_ending", text)),
        )
    }

    // ---- looking -----------------------------------------------------------------------------

    async fn attempt(&mut self, id: NodeId) -> Result<bool, ExecuteError> {
        let worked_out = self.arguments(id).and_then(|args| Ok((self.target(id)?, args)));
        let (target, arguments) = match worked_out {
            Ok(worked_out) => worked_out,
            Err(failure) => {
                self.record(vec![self.failed(id, failure)], Buffered).await?;
                return Ok(true);
            }
        };
        if let Action::Script { script, .. } = &self.state.def(id).step.action {
            let events = self.script(id, script, arguments);
            self.record(events, Buffered).await?;
            return Ok(true);
        }
        let task = self.task(id, (target, arguments));
        self.spawn(id, async move { task.attempt_read().await });
        Ok(false)
    }

    fn script(&self, id: NodeId, path: &str, arguments: Value) -> Vec<Event> {
        let node = &self.state.nodes[id];
        let started = Event::AttemptStarted {
            step: node.key.clone(),
            attempt: node.attempts + 1,
            arguments: Value::Null,
        };
        let Value::Object(fields) = arguments else {
            let text = format!("`with` of `{}` is not a map", node.key);
            return vec![
                started,
                self.failed(id, Failure::permanent("engine::invalid_with", text)),
            ];
        };
        let scope: Scope = fields.into_iter().collect();
        match self.programs.script(&self.plan.body, path, &scope) {
            Ok(evaluated) => {
                let step = node.key.clone();
                let mut seen = evaluated.seen;
                seen.extend(evaluated.rules.iter().map(|rule| crate::kernel::Seen {
                    name: format!("rule {}", rule.rule),
                    value: json!(rule),
                }));
                let mut output = Output::from(evaluated.value);
                if node.fan_out.is_some() {
                    output = output.packed();
                }
                let history = Rows::default();
                vec![started, Event::StepSucceeded { step, output, history, seen, fact: None }]
            }
            Err(failure) => vec![started, self.failed(id, failure)],
        }
    }

    /// A preview waits for nothing, and verifies nothing that has not happened.
    fn not_waited(&self, id: NodeId) -> Event {
        Event::StepSucceeded {
            step: self.state.nodes[id].key.clone(),
            output: json!({ "preview": true, "skipped": true }).into(),
            history: Rows::default(),
            seen: Vec::new(),
            fact: None,
        }
    }

    fn start_wait(&self, id: NodeId) -> Result<Event, Failure> {
        let place = Place::of(&self.state, id);
        let within = match &self.state.def(id).step.action {
            Action::Wait(Wait::Timer { duration }) => {
                let filled = self.fill(place, duration, &[])?;
                serde_json::from_value::<Span>(filled).map_err(|error| {
                    Failure::permanent("engine::invalid_wait", format!("`wait.for`: {error}"))
                })?
            }
            Action::Wait(Wait::Condition { within, .. } | Wait::Event { within, .. }) => *within,
            Action::Verify(verify) => verify.within,
            _ => return Err(Failure::permanent("engine::invalid_wait", "the step does not wait")),
        };
        let deadline = self.now().plus(within.0);
        Ok(Event::WaitStarted { step: self.state.nodes[id].key.clone(), deadline })
    }

    fn end_timer(&self, id: NodeId) -> Event {
        let node = &self.state.nodes[id];
        let since = node.waiting.as_ref().map_or(self.now(), |waiting| waiting.since);
        let waited = humantime::format_duration(self.now().since(since)).to_string();
        Event::StepSucceeded {
            step: node.key.clone(),
            output: json!({ "waited": waited }).into(),
            history: Rows::default(),
            seen: Vec::new(),
            fact: None,
        }
    }

    async fn poll(&mut self, id: NodeId) -> Result<bool, ExecuteError> {
        let worked_out = self.arguments(id).and_then(|args| Ok((self.target(id)?, args)));
        let waiting = self.state.nodes[id].waiting.clone();
        let (Ok(worked_out), Some(waiting)) = (worked_out.clone(), waiting) else {
            let failure = worked_out.err().unwrap_or_else(|| {
                Failure::permanent("engine::invalid_wait", "the wait has not begun")
            });
            self.record(vec![self.failed(id, failure)], Buffered).await?;
            return Ok(true);
        };
        let task = self.task(id, worked_out);
        let programs = Arc::clone(&self.programs);
        // What the expressions can see is fixed now; only the result is new.
        let place = Place::of(&self.state, id);
        let names = self.references_of(id);
        let known = self.scope(place, &names, &[]);
        self.spawn(id, async move {
            let scope = |name: &str, value: Value| {
                let mut scope = known.clone();
                scope.insert(name.to_owned(), value);
                scope
            };
            task.poll(&programs, (waiting.since, waiting.deadline), &scope).await
        });
        Ok(false)
    }

    /// What the expressions of a wait or a verification refer to.
    fn references_of(&self, id: NodeId) -> Vec<Reference> {
        let texts: Vec<&str> = match &self.state.def(id).step.action {
            Action::Verify(verify) => verify.assert.iter().map(String::as_str).collect(),
            Action::Wait(Wait::Condition { holds, .. }) => vec![holds],
            Action::Wait(Wait::Event { when: Some(when), .. }) => vec![when],
            _ => Vec::new(),
        };
        texts.iter().flat_map(|text| self.programs.references(text)).collect()
    }

    // ---- changes -----------------------------------------------------------------------------

    async fn propose(&mut self, id: NodeId) -> Result<bool, ExecuteError> {
        let worked_out = self.arguments(id).and_then(|args| Ok((self.target(id)?, args)));
        match worked_out {
            Err(failure) => {
                self.record(vec![self.failed(id, failure)], Buffered).await?;
                Ok(true)
            }
            Ok(worked_out) => {
                let so_far = self.so_far(self.plan.body.limits.max_changes);
                let task = self.task(id, worked_out);
                self.spawn(id, async move { task.propose(so_far).await });
                Ok(false)
            }
        }
    }

    pub(super) fn so_far(&self, max_changes: Option<u32>) -> SoFar {
        SoFar { changes: self.state.changes_applied, cost: self.state.cost.clone(), max_changes }
    }

    fn apply(&mut self, id: NodeId, drain: bool) -> bool {
        let node = &self.state.nodes[id];
        let Some(work) = node.work.as_deref().cloned() else { return false };
        let arguments = node.arguments.clone();
        let target = self.target(id).unwrap_or_default();
        let task = self.task(id, (target, arguments));
        self.spawn(id, async move { task.apply(work, drain).await });
        false
    }
}

/// A target template fills in over the inherited one, field by field.
fn merge_target(inherited: &Target, filled: Value) -> Result<Target, Failure> {
    let own: Target = serde_json::from_value(filled).map_err(|error| {
        Failure::permanent("engine::invalid_target", format!("`target`: {error}"))
    })?;
    Ok(Target {
        project: own.project.or_else(|| inherited.project.clone()),
        branch: own.branch.or_else(|| inherited.branch.clone()),
        database: own.database.or_else(|| inherited.database.clone()),
    })
}
