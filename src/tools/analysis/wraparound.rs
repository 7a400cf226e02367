//! How far a server is from stopping for want of transaction numbers, and what is in the way. PURE.
//!
//! Transaction numbers have 32 bits and are compared in a circle: half of it, 2³¹, lies in the past. The
//! server warns 40 million before the end and takes no further write 3 million before it
//! (`SetTransactionIdLimit` in `varsup.c`, the same for multixacts in `multixact.c`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::rounded;
use super::vacuum::Holder;
use crate::kernel::Timestamp;

/// The half of the circle that lies in the past.
pub const HALF: i64 = 1 << 31;

/// At this age the server warns with every transaction.
pub const WARNS_AT: i64 = HALF - 40_000_000;

/// At this age the server refuses to write.
pub const STOPS_AT: i64 = HALF - 3_000_000;

/// Members of multixacts that one file of `pg_multixact/members` holds: 32 pages of 8 KiB, each of 409
/// groups with 4 members (`multixact.c`).
const MEMBERS_PER_FILE: u64 = 32 * 409 * 4;

/// From this share on a VACUUM takes multixacts as if their age were higher, the more the fuller it is
/// (`MULTIXACT_MEMBER_SAFE_THRESHOLD` in `multixact.c`).
pub const MEMBERS_SAFE: f64 = 0.5;

/// How far a look saw the counters, for the next look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sample {
    /// When.
    pub at: String,
    /// Which cluster.
    pub server: String,
    /// The next transaction, counted without end.
    pub next_xid: i64,
    /// The next multixact; begins again after 2³².
    pub next_multixact: i64,
}

/// How fast numbers are used up.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Consumption {
    /// Transactions in a day.
    pub transactions_per_day: f64,
    /// Multixacts in a day.
    pub multixacts_per_day: f64,
    /// Over how many seconds this was seen.
    pub window_seconds: f64,
}

/// The shortest window that says anything about a day.
const SHORTEST_SECONDS: f64 = 60.0;

/// How fast numbers went between two looks at the same server.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no exact counts")]
pub fn consumption(before: &Sample, now: &Sample) -> Option<Consumption> {
    let (from, to) = (Timestamp::parse(&before.at)?, Timestamp::parse(&now.at)?);
    let seconds = (to.as_millis() - from.as_millis()) as f64 / 1e3;
    let transactions = now.next_xid - before.next_xid;
    if before.server != now.server || seconds < SHORTEST_SECONDS || transactions < 0 {
        return None;
    }
    let multixacts = (now.next_multixact - before.next_multixact).rem_euclid(1 << 32);
    let per_day = |count: i64| rounded(count as f64 / seconds * 86_400.0);
    Some(Consumption {
        transactions_per_day: per_day(transactions),
        multixacts_per_day: per_day(multixacts),
        window_seconds: rounded(seconds),
    })
}

/// The days until an age is reached at this pace; `None` when nothing is used up.
#[expect(clippy::cast_precision_loss, reason = "days need no exact counts")]
pub fn days_until(limit: i64, age: i64, per_day: f64) -> Option<f64> {
    (per_day > 0.0).then(|| rounded((limit - age).max(0) as f64 / per_day))
}

/// An age as a share of what can be reached.
#[expect(clippy::cast_precision_loss, reason = "a share needs no exact counts")]
pub fn used(age: i64) -> f64 {
    rounded(age as f64 / HALF as f64)
}

/// The share of the members of multixacts that so many files hold.
#[expect(clippy::cast_precision_loss, reason = "a share needs no exact counts")]
pub fn members_used(files: u64) -> f64 {
    rounded((files.saturating_mul(MEMBERS_PER_FILE)) as f64 / (1_u64 << 32) as f64)
}

/// The age to which a VACUUM can bring a table at best: that of the oldest snapshot that still sees its
/// rows. What only may hold it does not count.
pub fn reachable_age(holders: &[Holder], is_system: bool) -> i64 {
    let holding = holders.iter().filter(|it| it.is_certain() && (is_system || !it.catalog_only));
    holding.map(|holder| holder.xid_age).max().unwrap_or(0)
}

/// What makes a holder let go, for people.
pub fn remedy(holder: &Holder) -> String {
    let name = &holder.name;
    let quoted = name.replace('\'', "''");
    match holder.kind.split(' ').next().unwrap_or_default() {
        "prepared" => format!(
            "`rollback prepared '{quoted}'` or `commit prepared '{quoted}'`, in its own database"
        ),
        "replication" => format!(
            "let its consumer catch up, or `select pg_catalog.pg_drop_replication_slot('{quoted}')`"
        ),
        "standby" => "end the long query on the standby, or its `hot_standby_feedback`".to_owned(),
        _ => format!("`select pg_catalog.pg_terminate_backend({name})`, or let it commit"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::vacuum::tests::holder;
    use super::*;

    fn sample(hours: i64, next_xid: i64, next_multixact: i64) -> Sample {
        Sample {
            at: Timestamp::from_millis(1_700_000_000_000 + hours * 3_600_000).to_string(),
            server: "7".into(),
            next_xid,
            next_multixact,
        }
    }

    #[test]
    fn a_pace_needs_two_looks_at_one_server() {
        let pace = consumption(&sample(0, 1_000, 4_294_967_290), &sample(12, 2_000, 4)).unwrap();
        assert!((pace.transactions_per_day - 2_000.0).abs() < 1e-9);
        assert!((pace.multixacts_per_day - 20.0).abs() < 1e-9, "it went around: {pace:?}");
        assert_eq!(consumption(&sample(0, 1, 1), &sample(0, 9, 1)), None);
        assert_eq!(consumption(&sample(0, 9, 1), &sample(1, 1, 1)), None, "another cluster");
        let other = Sample { server: "8".into(), ..sample(0, 1, 1) };
        assert_eq!(consumption(&other, &sample(1, 9, 1)), None);
    }

    #[test]
    fn days_follow_the_pace() {
        assert_eq!(days_until(1_000, 400, 60.0), Some(10.0));
        assert_eq!(days_until(1_000, 2_000, 60.0), Some(0.0));
        assert_eq!(days_until(1_000, 400, 0.0), None);
    }

    #[test]
    fn the_circle_and_its_members() {
        assert!((used(HALF) - 1.0).abs() < 1e-9);
        assert!(members_used(82_040) > 0.999, "{}", members_used(82_040));
        assert!(members_used(1) < 0.001);
    }

    #[test]
    fn only_what_certainly_holds_counts() {
        let slot = Holder { catalog_only: true, xid_age: 900, ..holder(None) };
        let elsewhere = Holder { kind: "session elsewhere".into(), xid_age: 5_000, ..holder(None) };
        let session = Holder { xid_age: 300, ..holder(Some(1.0)) };
        let all = [slot, elsewhere, session];
        assert_eq!(reachable_age(&all, false), 300);
        assert_eq!(reachable_age(&all, true), 900);
        assert_eq!(reachable_age(&[], true), 0);
    }

    #[test]
    fn each_holder_has_its_remedy() {
        let of = |kind: &str, name: &str| {
            remedy(&Holder { kind: kind.into(), name: name.into(), ..holder(None) })
        };
        assert!(of("session", "42").contains("pg_terminate_backend(42)"));
        assert!(of("prepared transaction", "o'k").contains("rollback prepared 'o''k'"));
        assert!(of("replication slot", "s").contains("pg_drop_replication_slot('s')"));
        assert!(of("standby", "10.0.0.1").contains("hot_standby_feedback"));
    }
}
