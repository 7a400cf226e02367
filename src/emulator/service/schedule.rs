//! The schedule of a branch's automatic snapshots.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Days, NaiveDate, TimeZone as _, Utc, Weekday};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::context::Service;
use super::error::ApiError;
use super::record::{Kind, Record};
use super::snapshots;
use crate::kernel::Timestamp;
use crate::lakebase::resource::duration;

const LEAST_RETENTION: Duration = Duration::from_hours(1);
const FIELD: &str = "snapshot_schedule";
const SEEN: &str = "snapshot_schedule_seen";
/// How far back it is looked for moments that were missed while nothing ran.
const LOOK_BACK: u64 = 31;

/// `GET` and `PATCH` on `…/snapshot-schedule`.
pub(super) fn answer(service: &Service, call: &Call, branch: &str) -> Result<Value, ApiError> {
    service.store.transact(|tx| {
        let mut record = tx.need_alive(branch)?;
        let name = format!("{branch}/snapshot-schedule");
        if call.verb == "GET" {
            return Ok(shown(&name, &record));
        }
        if call.required("update_mask")? != "schedule" {
            return Err(ApiError::invalid("the only path of update_mask is 'schedule'"));
        }
        let cadences = call.body["schedule"].as_array().cloned().unwrap_or_default();
        cadences.iter().try_for_each(check)?;
        record.facts.insert(FIELD.to_owned(), Value::Array(cadences));
        record.facts.insert(SEEN.to_owned(), json!(service.clock.now()));
        tx.keep(&record)?;
        let mut response = shown(&name, &record);
        let kind = "type.googleapis.com/databricks.postgres.v1.SnapshotSchedule";
        response["@type"] = json!(kind);
        Ok(service.done_at_once(tx, &record, response)?.shown())
    })
}

fn shown(name: &str, record: &Record) -> Value {
    let schedule = record.facts.get(FIELD).cloned().unwrap_or_else(|| json!([]));
    json!({ "name": name, "schedule": schedule })
}

fn check(cadence: &Value) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::invalid(format!("Field 'schedule' {why}")));
    let retention = cadence["retention"].as_str().and_then(duration);
    if retention.is_none_or(|it| it < LEAST_RETENTION) {
        return refuse("needs a retention of an hour or more");
    }
    let given = ["daily_schedule", "weekly_schedule", "monthly_schedule"]
        .iter()
        .filter_map(|name| cadence.get(*name).and_then(Value::as_object))
        .collect::<Vec<_>>();
    let [plan] = given.as_slice() else {
        return refuse("needs one of daily_schedule, weekly_schedule, monthly_schedule");
    };
    if hour(plan).is_none_or(|hour| hour >= 24) {
        return refuse("needs an hour from 0 to 23");
    }
    if cadence.get("weekly_schedule").is_some() && weekday(plan).is_none() {
        return refuse("needs a day_of_week such as MONDAY");
    }
    if cadence.get("monthly_schedule").is_some()
        && !day(plan).is_some_and(|it| (1..=31).contains(&it))
    {
        return refuse("needs a day from 1 to 31");
    }
    Ok(())
}

/// An absent number is 0 in the wire format.
fn hour(plan: &Map<String, Value>) -> Option<u32> {
    plan.get("hour").map_or(Some(0), |it| it.as_u64().and_then(|it| u32::try_from(it).ok()))
}

fn day(plan: &Map<String, Value>) -> Option<u32> {
    plan.get("day")?.as_u64().and_then(|it| u32::try_from(it).ok())
}

fn weekday(plan: &Map<String, Value>) -> Option<Weekday> {
    plan.get("day_of_week")?.as_str()?.parse().ok()
}

/// How long a snapshot is kept that is due between `since` and `now`: the longest of those whose moment
/// has come.
fn due(cadences: &[Value], since: DateTime<Utc>, now: DateTime<Utc>) -> Option<Duration> {
    let has_come = |cadence: &&Value| {
        (0..=LOOK_BACK)
            .filter_map(|back| now.date_naive().checked_sub_days(Days::new(back)))
            .filter_map(|date| moment(cadence, date))
            .any(|at| since < at && at <= now)
    };
    let come = cadences.iter().filter(has_come);
    come.filter_map(|it| duration(it["retention"].as_str()?)).max()
}

/// When the cadence fires on a day.
fn moment(cadence: &Value, date: NaiveDate) -> Option<DateTime<Utc>> {
    let plan = |name: &str| cadence.get(name).and_then(Value::as_object);
    let hour = if let Some(daily) = plan("daily_schedule") {
        hour(daily)?
    } else if let Some(weekly) = plan("weekly_schedule") {
        hour(weekly).filter(|_| weekday(weekly) == Some(date.weekday()))?
    } else {
        let monthly = plan("monthly_schedule")?;
        let last = u32::from(date.num_days_in_month());
        hour(monthly).filter(|_| day(monthly).map(|it| it.min(last)) == Some(date.day()))?
    };
    Some(Utc.from_utc_datetime(&date.and_hms_opt(hour, 0, 0)?))
}

impl Service {
    /// Takes the snapshots whose moment has come.
    pub(super) async fn take_due_snapshots(self: &Arc<Self>) -> Result<(), ApiError> {
        let now = self.clock.now();
        let due: Vec<(Record, Duration)> = self.store.transact(|tx| {
            let all: Vec<Record> = tx.below(Kind::Project.plural())?;
            let mut due_now = Vec::new();
            for mut branch in all.into_iter().filter(|it| it.is_alive() && it.ready) {
                let Some(Value::Array(cadences)) = branch.facts.get(FIELD) else { continue };
                let seen = branch.fact(SEEN).and_then(Timestamp::parse).unwrap_or(now);
                if let Some(kept) = due(cadences, seen.to_datetime(), now.to_datetime()) {
                    branch.facts.insert(SEEN.to_owned(), json!(now));
                    tx.keep(&branch)?;
                    due_now.push((branch, kept));
                }
            }
            Ok::<_, ApiError>(due_now)
        })?;
        for (branch, kept) in due {
            let id = now.to_datetime().format("auto-%Y%m%d-%H%M%S").to_string();
            let spec = json!({ "source_branch": branch.name, "expire_time": now.plus(kept) });
            if let Err(error) = snapshots::take(self, branch.project(), &id, &spec).await {
                tracing::warn!(branch = %branch.name, %error, "a snapshot cannot be taken");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn moments_come_once() {
        let daily = json!({"retention": "7200s", "daily_schedule": {"hour": 3}});
        let weekly = json!({"retention": "86400s",
            "weekly_schedule": {"day_of_week": "SUNDAY", "hour": 3}});
        let all = [daily, weekly];
        // The 22nd of November 2026 is a Sunday.
        let kept = |since, now| due(&all, at(since), at(now)).map(|it| it.as_secs());
        assert_eq!(kept("2026-11-21T02:59:59Z", "2026-11-21T03:00:00Z"), Some(7200));
        assert_eq!(kept("2026-11-21T03:00:00Z", "2026-11-21T23:00:00Z"), None);
        assert_eq!(kept("2026-11-22T02:00:00Z", "2026-11-22T03:00:01Z"), Some(86400));
        assert_eq!(kept("2026-11-20T12:00:00Z", "2026-11-23T02:00:00Z"), Some(86400));
    }

    #[test]
    fn a_short_month_has_its_last_day() {
        let monthly = [json!({"retention": "3600s", "monthly_schedule": {"day": 31}})];
        let is_due = |since, now| due(&monthly, at(since), at(now)).is_some();
        assert!(is_due("2026-02-27T23:00:00Z", "2026-02-28T00:00:00Z"));
        assert!(!is_due("2026-03-29T12:00:00Z", "2026-03-30T12:00:00Z"));
        assert!(is_due("2026-04-29T23:00:00Z", "2026-04-30T01:00:00Z"));
    }

    #[test]
    fn schedules_that_are_refused() {
        for cadence in [
            json!({}),
            json!({"retention": "60s", "daily_schedule": {}}),
            json!({"retention": "3600s"}),
            json!({"retention": "3600s", "daily_schedule": {"hour": 24}}),
            json!({"retention": "3600s", "weekly_schedule": {"day_of_week": "X"}}),
            json!({"retention": "3600s", "monthly_schedule": {"hour": 1}}),
            json!({"retention": "3600s", "daily_schedule": {}, "monthly_schedule": {"day": 1}}),
        ] {
            assert!(check(&cadence).is_err(), "{cadence}");
        }
        check(&json!({"retention": "3600s", "daily_schedule": {}})).unwrap();
    }
}
