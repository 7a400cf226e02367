//! How the tasks of a run get their events into its journal.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::journal::event::Event;
use crate::journal::store::Durability;
use crate::kernel::KillPoints;

/// The executor is gone: its task has nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Events that a task wants recorded.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) events: Vec<Event>,
    pub(super) durability: Durability,
    pub(super) reply: oneshot::Sender<()>,
}

/// Hands events to the executor, the one writer of a run.
#[derive(Clone)]
pub(super) struct Recorder {
    sender: mpsc::UnboundedSender<Request>,
    kill: Arc<dyn KillPoints>,
}

impl Recorder {
    pub(super) fn new(kill: Arc<dyn KillPoints>) -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { sender, kill }, receiver)
    }

    /// Records events; with `Synced`, they are on disk when it returns.
    pub(super) async fn record(
        &self,
        events: Vec<Event>,
        durability: Durability,
    ) -> Result<(), Gone> {
        if events.is_empty() {
            return Ok(());
        }
        let boundary = self.kill.listens().then(|| boundary(&events));
        self.reach(boundary.as_deref(), "before commit");
        let (reply, done) = oneshot::channel();
        self.sender.send(Request { events, durability, reply }).map_err(|_| Gone)?;
        done.await.map_err(|_| Gone)?;
        self.reach(boundary.as_deref(), "after commit");
        Ok(())
    }

    fn reach(&self, boundary: Option<&str>, when: &str) {
        if let Some(boundary) = boundary {
            self.kill.reach(&format!("{boundary}/{when}"));
        }
    }
}

/// The name of a commit: the step and the kinds of its events, with the change where they are about one.
pub(super) fn boundary(events: &[Event]) -> String {
    let step = events.iter().find_map(Event::step).unwrap_or("run");
    let kind = |event: &Event| match event.change() {
        Some((direction, index)) => format!("{} {direction} {index}", event.kind()),
        None => event.kind().to_owned(),
    };
    let kinds: Vec<String> = events.iter().map(kind).collect();
    format!("{step}/{}", kinds.join("+"))
}
