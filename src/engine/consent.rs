//! Whether a set may be carried out, and who is asked. PURE.

use super::decide::{Command, Walk};
use super::state::{Approval, NodeId, Phase, Work};
use crate::journal::event::{Decision, SkipReason};
use crate::kernel::{Direction, Failure};
use crate::plan::document::OnReject;

/// How often an approval of one step is asked for again because its proposal moved.
const MAX_ASKED_AGAIN: usize = 3;

/// Whether a set may be carried out.
pub(super) enum Consent {
    /// It may.
    Given,
    /// A person is to be asked.
    Ask,
    /// The approval at this place waits for a decision.
    Waits(usize),
    /// It may not.
    Refused(Failure),
}

enum Room {
    Enough,
    /// What is in flight will tell.
    Unknown,
    None(Failure),
}

impl Walk<'_> {
    /// A fan-out asks once, for all items, as soon as every one of them has proposed.
    pub(super) fn request_for_items(&mut self, id: NodeId, items: &[NodeId]) {
        let state = self.state;
        let open = || items.iter().copied().filter(|&item| !state.nodes[item].phase.is_terminal());
        let proposed =
            |item: NodeId| state.nodes[item].work.as_ref().is_some_and(|work| !work.stale);
        if !open().all(proposed) {
            return;
        }
        let covers: Vec<_> = open().filter(|&item| self.must_ask(item)).collect();
        if !covers.is_empty() {
            self.push(Command::Request { node: id, covers, direction: Direction::Do });
        }
    }

    fn must_ask(&self, id: NodeId) -> bool {
        let node = &self.state.nodes[id];
        let Some(work) = &node.work else { return false };
        if work.is_frozen() || work.stale {
            return false;
        }
        matches!(self.consent(id, work, Direction::Do), Consent::Ask)
    }

    pub(super) fn write(&mut self, id: NodeId) {
        let state = self.state;
        let node = &state.nodes[id];
        let Some(work) = &node.work else {
            self.push(Command::Propose(id));
            return;
        };
        if work.is_frozen() {
            self.push(Command::Apply(id));
            return;
        }
        // An undecided approval keeps what it shows; everything else is proposed afresh after a pause.
        let consent = self.consent(id, work, Direction::Do);
        if work.stale && !matches!(consent, Consent::Waits(_) | Consent::Refused(_)) {
            self.push(Command::Propose(id));
            return;
        }
        match consent {
            Consent::Given => match self.room_for(id, work) {
                Room::Enough => {
                    self.granted += work.open_own_changes();
                    self.push(Command::Apply(id));
                }
                Room::Unknown => {}
                Room::None(failure) => self.push(Command::Fail(id, failure)),
            },
            Consent::Waits(place) => self.waits_for(place),
            Consent::Refused(failure) => self.push(Command::Fail(id, failure)),
            Consent::Ask if node.fan_out.is_some() => {}
            Consent::Ask => {
                let (covers, direction) = (vec![id], Direction::Do);
                self.push(Command::Request { node: id, covers, direction });
            }
        }
    }

    /// Whether the set, with all that has begun, is within what the run may carry out. Sets that are
    /// proposed side by side do not know of each other; here they do.
    fn room_for(&self, id: NodeId, work: &Work) -> Room {
        let Some(most) = self.situation.max_changes.map(u64::from) else { return Room::Enough };
        let state = self.state;
        // What others may still carry out, by their sets.
        let open = |other: &NodeId| {
            let node = &state.nodes[*other];
            let work = node.work.as_deref().filter(|_| *other != id && !node.phase.is_terminal());
            work.filter(|work| !work.stale).map_or(0, Work::open_own_changes)
        };
        let begun: u64 = state.frozen.iter().map(open).sum();
        let certain = state.changes_applied + work.open_own_changes() + begun + self.granted;
        let in_flight = self.situation.in_flight.iter();
        let possible: u64 = in_flight.filter(|id| !state.frozen.contains(id)).map(open).sum();
        if certain > most {
            let text = format!("refused: {certain} changes are more than `max_changes: {most}`");
            Room::None(Failure::permanent("policy::refused", text))
        } else if certain + possible > most {
            Room::Unknown
        } else {
            Room::Enough
        }
    }

    pub(super) fn waits_for(&mut self, place: usize) {
        let approval = &self.state.approvals[place];
        let step = approval.step.clone();
        if self.next.approvals.contains(&step) {
            return;
        }
        if approval.request.expires_at <= self.situation.now {
            let expire = Command::Expire { step, approval: place };
            if !self.next.commands.contains(&expire) {
                self.push(expire);
            }
        } else {
            self.wake(approval.request.expires_at);
            self.next.approvals.push(step);
        }
    }

    /// Whether a set of a step may be carried out: what it does, or what undoes it.
    pub(super) fn consent(&self, id: NodeId, work: &Work, direction: Direction) -> Consent {
        let state = self.state;
        let key = &state.nodes[id].key;
        let about =
            |known: &Approval| known.request.direction == direction && known.sets.contains_key(key);
        let Some(place) = state.approvals.iter().rposition(about) else {
            // What has begun was consented to.
            return if work.ask.is_empty() || work.set.is_empty() || work.is_frozen() {
                Consent::Given
            } else {
                Consent::Ask
            };
        };
        let approval = &state.approvals[place];
        let Some(decided) = &approval.decided else { return Consent::Waits(place) };
        if decided.decision != Decision::Approved {
            return Consent::Refused(rejected(approval));
        }
        let covered = approval.sets.get(key).is_some_and(|shown| work.set.is_covered_by(shown));
        if covered || work.set.is_empty() || work.is_frozen() {
            return Consent::Given;
        }
        let asked = state.approvals.iter().filter(|known| about(known)).count();
        if asked > MAX_ASKED_AGAIN {
            let text = format!("its proposal moved {asked} times while an approval was waited for");
            return Consent::Refused(
                Failure::permanent("approval::moving_target", text)
                    .with_help("start a new run once the target is calm"),
            );
        }
        Consent::Ask
    }

    pub(super) fn gate(&mut self, id: NodeId, on_reject: OnReject) {
        let state = self.state;
        let key = &state.nodes[id].key;
        if let Some(place) = state.approvals.iter().rposition(|known| known.step == *key) {
            let approval = &state.approvals[place];
            match approval.decided.as_ref().map(|decided| decided.decision) {
                None => self.waits_for(place),
                Some(Decision::Approved) => self.push(Command::Pass(id)),
                Some(Decision::Rejected | Decision::Expired) => self.push(match on_reject {
                    OnReject::Stop => Command::Fail(id, rejected(approval)),
                    OnReject::SkipDependents => Command::Skip(id, SkipReason::Rejected),
                }),
            }
            return;
        }
        let nodes = &state.instances[state.nodes[id].scope].nodes;
        let mut covers = Vec::new();
        let mut ready = true;
        for &index in &state.def(id).covers {
            ready &= self.prepare(nodes[index], &mut covers);
        }
        if ready {
            self.push(Command::Request { node: id, covers, direction: Direction::Do });
        }
    }

    /// Brings a step that an approval covers to the point where its proposal is known.
    fn prepare(&mut self, id: NodeId, covers: &mut Vec<NodeId>) -> bool {
        let state = self.state;
        let node = &state.nodes[id];
        let def = state.def(id);
        if node.phase.is_terminal() {
            return true;
        }
        if self.situation.in_flight.contains(&id) {
            return false;
        }
        if def.step.when.is_some() && node.condition.is_none() {
            self.push(Command::Condition(id));
            return false;
        }
        if def.step.for_each.is_some() && node.fan_out.is_none() {
            let Some(items) = &node.items else {
                self.push(Command::Items(id));
                return false;
            };
            // Every item is prepared, also behind one that is not ready.
            let mut ready = true;
            for &item in &items.nodes {
                ready &= self.prepare(item, covers);
            }
            return ready;
        }
        if let Phase::Backoff { until } = node.phase
            && until > self.situation.now
        {
            self.wake(until);
            return false;
        }
        if node.work.as_ref().is_some_and(|work| !work.stale) {
            covers.push(id);
            return true;
        }
        self.push(Command::Propose(id));
        false
    }
}

fn rejected(approval: &Approval) -> Failure {
    let decided = approval.decided.as_ref();
    let expired = decided.is_some_and(|decided| decided.decision == Decision::Expired);
    if expired {
        let text = "nobody approved the changes before the request expired";
        return Failure::permanent("approval::expired", text).with_help(
            "start the workflow again; `approvals.expires` sets how long a request is kept",
        );
    }
    let by = decided.map(|decided| decided.by.name.clone()).unwrap_or_default();
    let reason = decided.map(|decided| decided.reason.clone()).unwrap_or_default();
    Failure::permanent("approval::rejected", format!("rejected by {by}: {reason}"))
}
