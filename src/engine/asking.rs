//! Asking people, and taking their answer in.

use serde_json::{Map, Value, json};

use super::environment::Place;
use super::executor::{ExecuteError, Executor};
use super::state::NodeId;
use crate::journal::event::{ApprovalRequest, Decision, Event, Principal, Rows};
use crate::journal::store::Durability::{Buffered, Synced};
use crate::kernel::{Digest, Direction, Failure, Risk, Severity};
use crate::plan::document::{Action, ApprovalGate};

impl Executor {
    pub(super) async fn request(
        &mut self,
        id: NodeId,
        covers: &[NodeId],
        direction: Direction,
    ) -> Result<bool, ExecuteError> {
        let gate = match &self.state.def(id).step.action {
            Action::Approval(gate) => Some(gate.clone()),
            _ => None,
        };
        let request = match self.approval_request(id, (covers, direction), gate.as_ref()) {
            Ok(request) => request,
            Err(failure) => {
                self.record(vec![self.failed(id, failure)], Buffered).await?;
                return Ok(true);
            }
        };
        let step = self.state.nodes[id].key.clone();
        let mut events = vec![
            Event::ApprovalRequested { step: step.clone(), request: request.clone() },
            Event::notification(
                format!("{}/approval/{step}/{}", self.run, request.digest.short()),
                Severity::Warning,
                format!("run {} waits for an approval of `{step}`", self.run),
                request.prompt.clone(),
            ),
        ];
        if let Some(by) = self.approves_by_itself(&request) {
            events.push(Event::ApprovalDecided {
                step,
                digest: request.digest,
                decision: Decision::Approved,
                by,
                reason: if self.preview { "preview" } else { "run --yes" }.to_owned(),
            });
        }
        self.record(events, Synced).await?;
        Ok(true)
    }

    /// `--yes` approves as the caller, never high risk, and never without a rehearsal that is demanded. A
    /// preview carries nothing out.
    fn approves_by_itself(&self, request: &ApprovalRequest) -> Option<Principal> {
        let by = self.state.started_by.clone()?;
        let is_small = request.risk < Risk::High && request.rehearsed_within.is_none();
        let yes = self.state.yes && is_small && self.settings.approvals.allow_self;
        (yes || self.preview).then_some(by)
    }

    fn approval_request(
        &self,
        id: NodeId,
        (covers, direction): (&[NodeId], Direction),
        gate: Option<&ApprovalGate>,
    ) -> Result<ApprovalRequest, Failure> {
        let mut risk = Risk::Low;
        let (mut keys, mut reasons, mut bound, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for &covered in covers {
            let node = &self.state.nodes[covered];
            let Some(work) = node.work_of(direction) else { continue };
            risk = risk.max(work.set.risk());
            if direction == Direction::Do {
                risk = risk.max(self.state.def(covered).step.risk);
            }
            count += work.set.changes.len();
            for reason in &work.ask {
                if !reasons.contains(reason) {
                    reasons.push(reason.clone());
                }
            }
            bound.push(json!([node.key, work.set.digest]));
            keys.push(node.key.clone());
        }
        let place = Place::of(&self.state, id);
        let step = &self.state.nodes[id].key;
        let (prompt, expires, show) = match gate {
            None => {
                let expires = self.settings.approvals.expires;
                let question = match direction {
                    Direction::Do => format!("Carry out {count} change(s) of step `{step}`?"),
                    Direction::Undo => format!("Undo step `{step}` by {count} change(s)?"),
                };
                (question, expires, Value::Null)
            }
            Some(gate) => {
                let prompt = match self.fill(place, &json!(gate.prompt), &[])? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                let mut show = Map::new();
                for text in &gate.show {
                    show.insert(text.clone(), self.evaluate(place, text)?.value);
                }
                (prompt, gate.expires, Value::Object(show))
            }
        };
        if gate.is_some() {
            bound.insert(0, json!(["gate", step, prompt]));
        }
        if direction == Direction::Undo {
            bound.insert(0, json!(["undo", step]));
        }
        let digest = Digest::of_value(&Value::Array(bound));
        let expires_at = self.now().plus(expires.0);
        Ok(ApprovalRequest {
            digest,
            prompt,
            covers: keys,
            risk,
            reasons,
            expires_at,
            show,
            rehearsed_within: gate.and_then(|gate| gate.rehearsed_within),
            direction,
        })
    }

    pub(super) fn pass(&self, id: NodeId) -> Event {
        let key = &self.state.nodes[id].key;
        let decided = self.state.approval_of(key).and_then(|approval| approval.decided.as_ref());
        let output = decided.map(|decided| {
            json!({ "approved_by": decided.by.name, "reason": decided.reason, "at": decided.at })
        });
        Event::StepSucceeded {
            step: key.clone(),
            output: output.unwrap_or_default().into(),
            history: Rows::default(),
            seen: Vec::new(),
            fact: None,
        }
    }
}
