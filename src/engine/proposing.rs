//! Asking a tool what it would do, and judging its answer: policy, caps, approvals.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::apply::{is_set_up, setup_changes};
use super::looking::journal_failure;
use super::recorder::Gone;
use super::task::{Looked, Task, unknown_tool};
use crate::config::window;
use crate::journal::event::Event;
use crate::journal::store::{Durability, EntryFilter};
use crate::kernel::change::Origin;
use crate::kernel::{ChangeSet, Failure, Recovery, Risk, Settlement};
use crate::plan::document::{Action, ApprovalMode};
use crate::postgres::PgReader;
use crate::sop::Scope;
use crate::tools::AnyTool;

/// What the run has done so far, for caps.
#[derive(Clone, Debug, Default)]
pub(super) struct SoFar {
    pub(super) changes: u64,
    pub(super) cost: BTreeMap<String, u64>,
    pub(super) max_changes: Option<u32>,
}

/// What a set is judged by, beside itself.
pub(super) struct Rules<'a> {
    pub(super) tool: &'a str,
    /// The least risk of every change.
    pub(super) risk: Risk,
    pub(super) approval: ApprovalMode,
}

/// What the policy says of a set.
pub(super) struct Verdict {
    pub(super) ask: Vec<String>,
    pub(super) refuse: Vec<String>,
    pub(super) trace: Vec<Value>,
}

impl Task {
    /// Asks the write tool what it would do.
    pub(super) async fn propose(&self, so_far: SoFar) -> Result<(), Gone> {
        let Action::Tool(call) = &self.step.action else { return Ok(()) };
        let reader = self.proposer().await;
        let proposed = self.within(self.step.timeout.0, async {
            let (set, server) = self.proposal(&reader, &call.tool, self.arguments.clone()).await?;
            let rules =
                Rules { tool: &call.tool, risk: self.step.risk, approval: self.step.approval };
            let verdict = self.judge(&set, &so_far, &rules).await?;
            Ok((set, server, verdict))
        });
        let event = match proposed.await {
            Looked::Aborted => return Ok(()),
            Looked::Done(Ok((set, server, verdict))) if verdict.refuse.is_empty() => {
                Event::ChangesProposed {
                    step: self.key.clone(),
                    arguments: self.arguments.clone(),
                    ask: verdict.ask,
                    policy: json!(verdict.trace),
                    set,
                    server,
                }
            }
            Looked::Done(Ok((_, _, verdict))) => {
                let text = format!("refused: {}", verdict.refuse.join("; "));
                self.failed(Failure::permanent("policy::refused", text))
            }
            Looked::Done(Err(failure)) => self.failed(failure),
        };
        self.keep(reader);
        self.record(vec![event], Durability::Buffered).await
    }

    pub(super) async fn proposal(
        &self,
        reader: &PgReader,
        tool: &str,
        arguments: Value,
    ) -> Result<(ChangeSet, Value), Failure> {
        let Some(AnyTool::Write(found)) = self.parts.catalog.find(tool) else {
            return Err(unknown_tool(tool));
        };
        let mut set = {
            let (workspace, earlier) = (self.workspace(), self.earlier(found).await?);
            let cx = self.context(reader, workspace.as_deref(), &earlier);
            found.propose(&cx, arguments).await?
        };
        let on_database = set.changes.iter().any(|change| change.operation.is_on_database());
        if !on_database {
            return Ok((set, Value::Null));
        }
        let keyed = set.changes.iter().any(|change| change.recovery == Recovery::Transactional);
        if keyed && !self.has_keys(reader).await? {
            let changes = setup_changes().into_iter().chain(set.changes).collect();
            set = ChangeSet::new(changes);
        }
        Ok((set, json!(reader.server().await?)))
    }

    /// Whether the place has the table of keys. It stays there once it was seen, as long as the run keeps at
    /// work on the place.
    async fn has_keys(&self, reader: &PgReader) -> Result<bool, Failure> {
        let place = reader.server().await?;
        if self.sessions.is_ready(&place) {
            return Ok(true);
        }
        let has_keys = is_set_up(reader).await?;
        if has_keys {
            self.sessions.saw_ready(&place);
        }
        Ok(has_keys)
    }

    /// What the approval rules and the change policy say of a set.
    pub(super) async fn judge(
        &self,
        set: &ChangeSet,
        so_far: &SoFar,
        rules: &Rules<'_>,
    ) -> Result<Verdict, Failure> {
        let mut verdict = Verdict { ask: Vec::new(), refuse: Vec::new(), trace: Vec::new() };
        if set.is_empty() {
            return Ok(verdict);
        }
        let risk = rules.risk.max(set.risk());
        match rules.approval {
            ApprovalMode::Required => verdict.ask.push("required by the workflow".to_owned()),
            ApprovalMode::Auto if risk >= self.settings.approvals.ask_from => {
                verdict.ask.push(format!("risk {risk}"));
            }
            ApprovalMode::Never if risk == Risk::High => verdict
                .refuse
                .push("`approval: never` stands beside a change of high risk".to_owned()),
            ApprovalMode::Auto | ApprovalMode::Never => {}
        }
        let own = set.changes.iter().filter(|change| change.origin == Origin::Tool).count();
        let count = u64::try_from(own).unwrap_or(u64::MAX);
        if let Some(most) = so_far.max_changes {
            let total = so_far.changes.saturating_add(count);
            if total > u64::from(most) {
                verdict.refuse.push(format!("{total} changes are more than `max_changes: {most}`"));
            }
        }
        if let Some(policy) = &self.plan.body.policy {
            self.ask_policy(policy, (set, so_far, rules), &mut verdict).await?;
        }
        Ok(verdict)
    }

    async fn ask_policy(
        &self,
        policy: &str,
        (set, so_far, rules): (&ChangeSet, &SoFar, &Rules<'_>),
        verdict: &mut Verdict,
    ) -> Result<(), Failure> {
        let now = self.parts.clock.now();
        let frozen = self.frozen().await?;
        let mut run_cost = so_far.cost.clone();
        let mut day_cost = self.cost_of_day().await?;
        let window = window::state(&self.settings.windows, now)?;
        for (place, change) in (0_u64..).zip(&set.changes) {
            let scope: Scope = [
                (
                    "change",
                    json!({
                        "kind": change.operation.kind(),
                        "object": change.object,
                        "risk": rules.risk.max(change.risk),
                        "recovery": change.recovery,
                        "independent": change.independent,
                        "cost": change.cost,
                        "tool": rules.tool,
                        "step": self.key,
                    }),
                ),
                (
                    "run",
                    json!({ "changes_so_far": so_far.changes + place, "cost_so_far": run_cost }),
                ),
                ("day", json!({ "cost_so_far": day_cost })),
                ("caps", json!(self.settings.caps)),
                ("window", window.clone()),
                ("frozen", json!(frozen)),
                ("target", json!(self.target)),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
            let evaluated = self.programs.script(&self.plan.body, policy, &scope)?;
            let reasons = evaluated.value["reasons"].as_array().into_iter().flatten();
            let reasons = reasons.filter_map(Value::as_str).map(str::to_owned);
            match evaluated.value["verdict"].as_str() {
                Some("allow") => {}
                Some("ask") => extend_new(&mut verdict.ask, reasons),
                Some("refuse") => extend_new(&mut verdict.refuse, reasons),
                _ => {
                    let text = format!("`{policy}` returned no verdict of allow, ask or refuse");
                    return Err(Failure::permanent("policy::invalid", text));
                }
            }
            verdict.trace.push(json!({
                "change": place,
                "verdict": evaluated.value["verdict"],
                "reasons": evaluated.value["reasons"],
                "rules": evaluated.rules,
            }));
            for (name, amount) in &change.cost {
                *run_cost.entry(name.clone()).or_default() += amount;
                *day_cost.entry(name.clone()).or_default() += amount;
            }
        }
        Ok(())
    }

    /// The reason of the freeze that holds for the target, when one does.
    async fn frozen(&self) -> Result<Option<String>, Failure> {
        let filter = EntryFilter { kinds: vec!["override".to_owned()], ..EntryFilter::default() };
        let now = self.parts.clock.now();
        let target = self.target.to_string();
        let mut frozen = None;
        for entry in
            self.parts.journal.entries(filter).await.map_err(|error| journal_failure(&error))?
        {
            let Event::Override { what, by, reason, expires } = entry.event else { continue };
            let Some((verb, of)) = what.split_once(' ') else { continue };
            if !covers(of, &target) {
                continue;
            }
            let over = expires.is_some_and(|span| entry.at.plus(span.0) <= now);
            match verb {
                "freeze" if !over => frozen = Some(format!("frozen by {}: {reason}", by.name)),
                "thaw" if !over => frozen = None,
                _ => {}
            }
        }
        Ok(frozen)
    }

    /// What the changes of the last 24 hours cost, over all runs.
    async fn cost_of_day(&self) -> Result<BTreeMap<String, u64>, Failure> {
        let now = self.parts.clock.now();
        let day = Duration::from_hours(24).as_millis();
        let since = now.as_millis().saturating_sub(i64::try_from(day).unwrap_or(i64::MAX));
        let filter = EntryFilter {
            kinds: ["changes_proposed", "change_settled"].map(str::to_owned).into(),
            since: Some(crate::kernel::Timestamp::from_millis(since)),
            ..EntryFilter::default()
        };
        let mut sets: BTreeMap<(String, String), ChangeSet> = BTreeMap::new();
        let mut cost = BTreeMap::new();
        for entry in
            self.parts.journal.entries(filter).await.map_err(|error| journal_failure(&error))?
        {
            match entry.event {
                Event::ChangesProposed { step, set, .. } => {
                    sets.insert((entry.stream, step), set);
                }
                Event::ChangeSettled {
                    step,
                    index,
                    direction: crate::kernel::Direction::Do,
                    settlement: Settlement::Applied { .. },
                } => {
                    let set = sets.get(&(entry.stream, step));
                    let change = usize::try_from(index).ok().and_then(|at| set?.changes.get(at));
                    for (name, amount) in change.into_iter().flat_map(|change| &change.cost) {
                        *cost.entry(name.clone()).or_default() += amount;
                    }
                }
                _ => {}
            }
        }
        Ok(cost)
    }
}

fn extend_new(known: &mut Vec<String>, more: impl Iterator<Item = String>) {
    for reason in more {
        if !known.contains(&reason) {
            known.push(reason);
        }
    }
}

/// Whether an override of `of` is meant for `target`: a part that is not said (`-`) means all of them,
/// so that a frozen branch has no database that can still be changed.
fn covers(of: &str, target: &str) -> bool {
    let parts = |text: &str| -> Vec<String> { text.splitn(3, '/').map(str::to_owned).collect() };
    of == "*" || parts(of).iter().zip(parts(target)).all(|(of, part)| of == "-" || *of == part)
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_frozen_branch_freezes_its_databases() {
        for of in ["*", "shop/production/-", "shop/-/-", "shop/production/app"] {
            assert!(covers(of, "shop/production/app"), "{of}");
        }
        for of in ["shop/staging/-", "bakery/-/-", "shop/production/other"] {
            assert!(!covers(of, "shop/production/app"), "{of}");
        }
        assert!(!covers("shop/production/app", "shop/production/-"));
    }
}
