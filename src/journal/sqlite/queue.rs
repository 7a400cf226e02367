//! What waits for the writer's next commit.
//!
//! A channel would wake the writer for each event of a script. Here it is woken when somebody waits for a
//! commit, or when the first request comes after a pause; all others lie there until it looks.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::writer::Request;

/// How long a buffered event waits for company.
const LINGER: Duration = Duration::from_millis(5);

/// The most requests of one commit.
const LARGEST_GROUP: usize = 4096;

/// With more requests or bytes than this that are not committed, a buffered append waits for its commit.
const LONGEST_BACKLOG: usize = 2 * LARGEST_GROUP;
const LARGEST_BACKLOG: usize = 8 << 20;

/// Requests on their way to the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    /// Whether somebody waits for one of them.
    awaited: bool,
    writer: Writing,
    /// Whether nothing will come any more.
    closed: bool,
    /// Requests and bytes of payload that are not committed yet, those at the writer included.
    backlog: (usize, usize),
}

/// What the writer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writing {
    #[default]
    Works,
    /// It sleeps until something comes.
    Sleeps,
    IsGone,
}

/// The requests of a commit.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) requests: Vec<Request>,
    /// How many they are, and the bytes of their payloads.
    pub(super) size: (usize, usize),
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so much waits already that nothing more may be added without waiting for it.
    pub(super) fn is_full(&self) -> bool {
        let (requests, bytes) = self.state().backlog;
        requests > LONGEST_BACKLOG || bytes > LARGEST_BACKLOG
    }

    /// Adds a request. Says whether the writer is still there to take it.
    pub(super) fn push(&self, request: Request) -> bool {
        let (awaited, bytes) = (request.is_awaited(), request.bytes());
        let mut state = self.state();
        if state.writer == Writing::IsGone {
            return false;
        }
        state.requests.push(request);
        state.backlog = (state.backlog.0 + 1, state.backlog.1 + bytes);
        let sleeps = std::mem::take(&mut state.writer) == Writing::Sleeps;
        let wakes = sleeps || (awaited && !state.awaited) || state.requests.len() == LARGEST_GROUP;
        state.awaited |= awaited;
        drop(state);
        if wakes {
            self.wake.notify_one();
        }
        true
    }

    /// The requests of the next commit: all that is queued, as soon as somebody waits for one of them or it was
    /// time for company to come. `None`: nothing will come any more.
    ///
    /// Who has just committed looks again by itself: what comes soon after, and nobody waits for, wakes nobody.
    pub(super) fn next(&self) -> Option<Group> {
        let mut state = self.state();
        let mut deadline = Instant::now() + LINGER;
        while !state.awaited && !state.closed && state.requests.len() < LARGEST_GROUP {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let waited = self.wake.wait_timeout(state, left);
                (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            } else if state.requests.is_empty() {
                state.writer = Writing::Sleeps;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.writer = Writing::Works;
                deadline = Instant::now() + LINGER;
            } else {
                break;
            }
        }
        if state.requests.is_empty() {
            return None;
        }
        let most = state.requests.len().min(LARGEST_GROUP);
        let rest = state.requests.split_off(most);
        let requests = std::mem::replace(&mut state.requests, rest);
        state.awaited = state.requests.iter().any(Request::is_awaited);
        let size = (requests.len(), requests.iter().map(Request::bytes).sum());
        Some(Group { requests, size })
    }

    /// What was taken is committed, or refused.
    pub(super) fn done(&self, size: (usize, usize)) {
        let mut state = self.state();
        state.backlog = (state.backlog.0 - size.0, state.backlog.1 - size.1);
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// The writer is gone: whoever waits for it is told.
    pub(super) fn abandon(&self) {
        let mut state = self.state();
        state.writer = Writing::IsGone;
        let left = std::mem::take(&mut state.requests);
        drop(state);
        drop(left);
    }
}
