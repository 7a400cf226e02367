//! The clients of one endpoint: how many there are, what they can be cancelled by, how they are ended.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::wire::CancelKey;

/// How a client's session is ended from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ending {
    /// Not at all.
    #[default]
    No,
    /// It is told so: it does nothing at the moment.
    Told,
    /// The connection just breaks.
    Broken,
}

struct Client {
    ending: watch::Sender<Ending>,
    key: Option<(CancelKey, PathBuf)>,
}

#[derive(Default)]
struct Held {
    next: u64,
    clients: HashMap<u64, Client>,
}

/// The clients of one endpoint.
#[derive(Default)]
pub(super) struct Clients {
    held: Mutex<Held>,
}

/// One client's place. Dropping it gives the place back.
pub(super) struct Seat {
    clients: Arc<Clients>,
    number: u64,
    pub ending: watch::Receiver<Ending>,
}

impl Clients {
    /// Takes a place, if fewer than `limit` are taken.
    pub(super) fn sit(self: &Arc<Self>, limit: u32) -> Option<Seat> {
        let mut held = self.lock();
        if held.clients.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return None;
        }
        let number = held.next;
        held.next += 1;
        let (sender, ending) = watch::channel(Ending::No);
        held.clients.insert(number, Client { ending: sender, key: None });
        Some(Seat { clients: Arc::clone(self), number, ending })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().clients.len()
    }

    /// The socket of the server that has the session of this key.
    pub(super) fn server_of(&self, key: CancelKey) -> Option<PathBuf> {
        let held = self.lock();
        let mut keys = held.clients.values().filter_map(|client| client.key.as_ref());
        keys.find(|(own, _)| *own == key).map(|(_, socket)| socket.clone())
    }

    /// Ends all sessions.
    pub(super) fn end(&self, ending: Ending) {
        for client in self.lock().clients.values() {
            client.ending.send_replace(ending);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Remembers what the session can be cancelled by.
    pub(super) fn remember(&self, key: CancelKey, socket: &Path) {
        if let Some(client) = self.clients.lock().clients.get_mut(&self.number) {
            client.key = Some((key, socket.to_owned()));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.clients.lock().clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_and_given_back() {
        let clients = Arc::<Clients>::default();
        let first = clients.sit(1).unwrap();
        assert!(clients.sit(1).is_none());
        first.remember(*b"abcdefgh", Path::new("/s"));
        assert_eq!(clients.server_of(*b"abcdefgh"), Some(PathBuf::from("/s")));
        clients.end(Ending::Broken);
        assert_eq!(*first.ending.borrow(), Ending::Broken);
        drop(first);
        assert_eq!((clients.count(), clients.server_of(*b"abcdefgh")), (0, None));
        assert!(clients.sit(1).is_some());
    }
}
