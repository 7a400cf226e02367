//! Failures of buffered appends that somebody has yet to be told. PURE.

use std::collections::HashMap;

use super::admission::PreparedAppend;
use super::event::Event;
use super::store::{Expect, JournalError};

/// The streams that lost a buffered append.
///
/// The next call of such a stream is told instead of being appended. Calls by claim are refused until
/// the run is claimed again: their caller builds on events that are not there.
#[derive(Clone, Debug, Default)]
pub(super) struct Owed {
    lost: HashMap<String, Lost>,
}

#[derive(Clone, Debug)]
struct Lost {
    error: JournalError,
    told: bool,
}

impl Owed {
    /// The failure that a batch meets instead of being appended. `heard`: its caller waits for it.
    pub(super) fn refuse(&mut self, batch: &[PreparedAppend], heard: bool) -> Option<JournalError> {
        for append in batch {
            let Some(lost) = self.lost.get_mut(append.stream.as_str()) else { continue };
            if !lost.told || matches!(append.expect, Expect::Claim(_)) {
                lost.told = heard;
                return Some(lost.error.clone());
            }
        }
        None
    }

    /// A buffered batch failed.
    pub(super) fn owe(&mut self, batch: &[PreparedAppend], error: &JournalError) {
        for append in batch {
            let stream = append.stream.as_str().to_owned();
            let lost = || Lost { error: error.clone(), told: false };
            self.lost.entry(stream).or_insert_with(lost).told = false;
        }
    }

    /// A batch was appended: what it claimed is whole again.
    pub(super) fn appended(&mut self, batch: &[PreparedAppend]) {
        if self.lost.is_empty() {
            return;
        }
        for append in batch {
            let claims = |event: &Event| matches!(event, Event::RunClaimed { .. });
            if append.events.iter().any(|prepared| claims(&prepared.event)) {
                self.lost.remove(append.stream.as_str());
            }
        }
    }

    /// Whether somebody has yet to be told something.
    pub(super) fn anything(&self) -> bool {
        self.lost.values().any(|lost| !lost.told)
    }
}
