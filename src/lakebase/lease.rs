//! A secret that runs out and is renewed ahead of time, by one caller at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::kernel::{Clock, Failure, Secret, Timestamp};

/// After a renewal ahead of time has failed, the next one waits this long: the secret still works.
const AFTER_A_FAILURE: Duration = Duration::from_mins(1);

/// A secret, and how long it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) value: Secret<String>,
    /// From here on it is renewed when there is occasion.
    pub(super) renew_at: Timestamp,
    /// From here on it is not used.
    pub(super) expires_at: Timestamp,
}

/// Keeps a secret that runs out.
#[derive(Debug, Default)]
pub(super) struct Renewing {
    state: Mutex<State>,
    /// Whose turn it is to renew.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    lease: Option<Lease>,
    not_before: Timestamp,
}

impl Renewing {
    /// The secret. Whoever finds it old renews it, once for all that wait; as long as the old one
    /// works, nobody waits for the new one.
    pub(super) async fn get<F, R>(&self, clock: &dyn Clock, renew: F) -> Result<Lease, Failure>
    where
        F: FnOnce() -> R + Send,
        R: Future<Output = Result<Lease, Failure>> + Send,
    {
        let old = self.state().lease.clone().filter(|lease| clock.now() < lease.expires_at);
        if let Some(old) = old {
            if clock.now() < old.renew_at.max(self.state().not_before) {
                return Ok(old);
            }
            let Ok(_turn) = self.turn.try_lock() else { return Ok(old) };
            if let Some(lease) = self.fresh(clock) {
                return Ok(lease);
            }
            return Ok(match renew().await {
                Ok(lease) => self.keep(lease),
                Err(failure) => {
                    tracing::warn!(%failure, "not renewed ahead of time");
                    self.state().not_before = clock.now().plus(AFTER_A_FAILURE);
                    old
                }
            });
        }
        let _turn = self.turn.lock().await;
        match self.fresh(clock) {
            Some(lease) => Ok(lease),
            None => Ok(self.keep(renew().await?)),
        }
    }

    /// Forgets a secret that turned out to be of no use. Whether there was one.
    pub(super) fn forget(&self) -> bool {
        self.state().lease.take().is_some()
    }

    fn fresh(&self, clock: &dyn Clock) -> Option<Lease> {
        self.state().lease.clone().filter(|lease| clock.now() < lease.renew_at)
    }

    fn keep(&self, lease: Lease) -> Lease {
        let mut state = self.state();
        state.lease = Some(lease.clone());
        state.not_before = Timestamp::default();
        lease
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    use super::*;
    use crate::kernel::BoxFuture;

    struct Turned(AtomicI64);

    impl Clock for Turned {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(self.0.load(Ordering::SeqCst))
        }

        fn sleep_until(&self, _at: Timestamp) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }
    }

    fn lease(value: u32, renew_at: i64, expires_at: i64) -> Lease {
        Lease {
            value: Secret::new(value.to_string()),
            renew_at: Timestamp::from_millis(renew_at),
            expires_at: Timestamp::from_millis(expires_at),
        }
    }

    #[tokio::test]
    async fn one_renews_for_all() {
        let (clock, renewing) = (Turned(AtomicI64::new(0)), Renewing::default());
        let renewals = AtomicU32::new(0);
        let get = || {
            renewing.get(&clock, || async {
                tokio::task::yield_now().await;
                let number = renewals.fetch_add(1, Ordering::SeqCst) + 1;
                let now = clock.now().as_millis();
                Ok(lease(number, now + 100_000, now + 200_000))
            })
        };
        let (a, b, c) = tokio::join!(get(), get(), get());
        assert_eq!((a.unwrap(), c.unwrap()), (b.clone().unwrap(), b.unwrap()));
        assert_eq!(renewals.load(Ordering::SeqCst), 1);
        clock.0.store(100_000, Ordering::SeqCst);
        let (first, second) = tokio::join!(get(), get());
        // The one renews; the other does not wait for it.
        assert_eq!(first.unwrap().value.expose(), "2");
        assert_eq!(second.unwrap().value.expose(), "1");
        clock.0.store(500_000, Ordering::SeqCst);
        let (first, second) = tokio::join!(get(), get());
        assert_eq!(
            (first.unwrap().value.expose().as_str(), second.unwrap().value.expose().as_str()),
            ("3", "3")
        );
    }

    #[tokio::test]
    async fn a_failed_renewal_leaves_what_works() {
        let (clock, renewing) = (Turned(AtomicI64::new(0)), Renewing::default());
        let tries = AtomicU32::new(0);
        let fail = || {
            renewing.get(&clock, || async {
                tries.fetch_add(1, Ordering::SeqCst);
                Err(Failure::permanent("test::down", "down"))
            })
        };
        assert!(fail().await.is_err());
        renewing.keep(lease(1, 0, 100_000));
        for now in [0, 1, 59_999] {
            clock.0.store(now, Ordering::SeqCst);
            assert_eq!(fail().await.unwrap().value.expose(), "1");
        }
        assert_eq!(tries.load(Ordering::SeqCst), 2);
        clock.0.store(60_000, Ordering::SeqCst);
        fail().await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 3);
        clock.0.store(100_000, Ordering::SeqCst);
        assert!(fail().await.is_err());
        assert!(renewing.forget() && !renewing.forget());
    }
}
