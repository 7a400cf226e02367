//! The shop's own programs: a steady load that is measured, and one program that forgets its
//! transaction.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Executor as _, PgConnection};
use tokio::task::JoinSet;

use super::error::DemoError;
use super::patient::{Patient, open};
use crate::kernel::{Clock, IdSource, SqlFile, Timestamp};
use crate::sql_file;

static PAYMENT: SqlFile = sql_file!("demo/payment");
static HOLD: SqlFile = sql_file!("demo/hold");

/// How many sessions pay at once.
pub const WORKERS: usize = 4;
/// How long each of them rests after a payment: the load is steady, not as high as it can be.
const REST: Duration = Duration::from_millis(8);

/// A payment that was made.
#[derive(Clone, Copy, Debug)]
struct Payment {
    ended: Timestamp,
    took: Duration,
}

/// What a stretch of time looked like from the outside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// How long it was looked at.
    pub seconds: f64,
    /// Payments that were made in it.
    pub payments: usize,
    /// Payments per second.
    pub per_second: f64,
    /// Half of them took no longer.
    pub median_ms: Option<f64>,
    /// The slowest of them.
    pub slowest_ms: Option<f64>,
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payments, seconds, per_second, .. } = self;
        match (self.median_ms, self.slowest_ms) {
            (Some(median), Some(slowest)) => write!(
                f,
                "{payments} in {seconds:.1} s, {per_second:.0} per second, median {median} ms, \
                 slowest {slowest} ms"
            ),
            _ => write!(f, "none in {seconds:.1} s"),
        }
    }
}

/// Sessions that make payments until they are dropped.
pub struct Load {
    payments: Arc<Mutex<Vec<Payment>>>,
    clock: Arc<dyn Clock>,
    _sessions: JoinSet<Result<(), DemoError>>,
}

impl Load {
    /// Lets the sessions begin.
    pub async fn start(
        patient: &Patient,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Result<Self, DemoError> {
        let payments = Arc::new(Mutex::new(Vec::new()));
        let mut sessions = JoinSet::new();
        for number in 1..=WORKERS {
            let session = open(&patient.app(&format!("checkout-{number}"))).await?;
            let worker = Worker {
                session,
                payments: Arc::clone(&payments),
                clock: Arc::clone(&clock),
                ids: Arc::clone(&ids),
            };
            sessions.spawn(worker.work());
        }
        Ok(Self { payments, clock, _sessions: sessions })
    }

    /// Looks at the load for so long.
    pub async fn watch(&self, length: Duration) -> Throughput {
        let from = self.clock.now();
        self.clock.sleep_until(from.plus(length)).await;
        self.since(from)
    }

    /// The load from an instant until now.
    pub fn since(&self, from: Timestamp) -> Throughput {
        let to = self.clock.now();
        let known = self.payments.lock().unwrap_or_else(PoisonError::into_inner);
        throughput(&known, from, to)
    }
}

struct Worker {
    session: PgConnection,
    payments: Arc<Mutex<Vec<Payment>>>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Worker {
    async fn work(mut self) -> Result<(), DemoError> {
        loop {
            let began = Instant::now();
            let payment = sqlx::query(PAYMENT.body())
                .bind(self.one_of(20_000))
                .bind(i32::try_from(self.one_of(4)).unwrap_or(1))
                .bind(self.one_of(100));
            let paid = payment.execute(&mut self.session).await;
            paid.map_err(|source| DemoError::Database { what: PAYMENT.name, source })?;
            let payment = Payment { ended: self.clock.now(), took: began.elapsed() };
            self.payments.lock().unwrap_or_else(PoisonError::into_inner).push(payment);
            self.clock.sleep_until(self.clock.now().plus(REST)).await;
        }
    }

    /// A number from 1 to `most`.
    #[expect(clippy::cast_possible_truncation, reason = "a small number")]
    fn one_of(&self, most: u16) -> i64 {
        (self.ids.draw() * f64::from(most)).floor() as i64 + 1
    }
}

fn throughput(payments: &[Payment], from: Timestamp, to: Timestamp) -> Throughput {
    let inside = payments.iter().filter(|payment| payment.ended >= from && payment.ended < to);
    let mut took: Vec<f64> = inside.map(|payment| payment.took.as_secs_f64() * 1000.0).collect();
    took.sort_by(f64::total_cmp);
    let seconds = to.since(from).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let per_second = if seconds > 0.0 { took.len() as f64 / seconds } else { 0.0 };
    Throughput {
        seconds: tenths(seconds),
        payments: took.len(),
        per_second: tenths(per_second),
        median_ms: took.get(took.len() / 2).copied().map(tenths),
        slowest_ms: took.last().copied().map(tenths),
    }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A session that changed a row and then forgot its transaction: it holds the row's lock.
pub struct Forgotten {
    _session: PgConnection,
}

impl Forgotten {
    /// Changes the row, and does nothing more.
    pub async fn begin(patient: &Patient) -> Result<Self, DemoError> {
        let mut session = open(&patient.app("month-end-report")).await?;
        for statement in ["begin", HOLD.body()] {
            let done = session.execute(statement).await;
            done.map_err(|source| DemoError::Database { what: HOLD.name, source })?;
        }
        Ok(Self { _session: session })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_in_the_stretch_counts() {
        let payment = |at, took| Payment {
            ended: Timestamp::from_millis(at),
            took: Duration::from_millis(took),
        };
        let known = [payment(900, 1), payment(1000, 3), payment(1500, 2), payment(3000, 9)];
        let seen = throughput(&known, Timestamp::from_millis(1000), Timestamp::from_millis(3000));
        assert_eq!((seen.payments, seen.per_second), (2, 1.0));
        assert_eq!((seen.median_ms, seen.slowest_ms), (Some(3.0), Some(3.0)));
        let nothing = throughput(&[], Timestamp::from_millis(0), Timestamp::from_millis(0));
        assert_eq!((nothing.per_second, nothing.median_ms), (0.0, None));
    }
}
