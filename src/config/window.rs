//! Maintenance windows: weekly stretches of time in a zone. PURE.

use chrono::{Datelike as _, Duration, NaiveTime, TimeZone as _};
use chrono_tz::Tz;
use serde_json::{Value, json};

use super::settings::Window;
use crate::kernel::{Failure, Timestamp};

/// Whether a window is open, and when the next one opens, as policies see it. Without any window it is
/// always open.
pub fn state(windows: &[Window], now: Timestamp) -> Result<Value, Failure> {
    if windows.is_empty() {
        return Ok(json!({ "open": true, "next_open": null }));
    }
    let mut next: Option<Timestamp> = None;
    for window in windows {
        let (from, to, zone) = parse(window)?;
        let local = now.to_datetime().with_timezone(&zone);
        // A window that passes midnight began on the day before.
        for ahead in -1..=7 {
            let day = local.date_naive() + Duration::days(ahead);
            if !on_day(window, day.weekday()) {
                continue;
            }
            let end_day = if to > from { day } else { day + Duration::days(1) };
            let opens = zone.from_local_datetime(&day.and_time(from)).earliest();
            let closes = zone.from_local_datetime(&end_day.and_time(to)).latest();
            let (Some(opens), Some(closes)) = (opens, closes) else { continue };
            let opens = Timestamp::from_millis(opens.timestamp_millis());
            if opens <= now && now.as_millis() < closes.timestamp_millis() {
                return Ok(json!({ "open": true, "next_open": null }));
            }
            if opens > now {
                next = Some(next.map_or(opens, |known| known.min(opens)));
            }
        }
    }
    Ok(json!({ "open": false, "next_open": next }))
}

fn on_day(window: &Window, day: chrono::Weekday) -> bool {
    let name = day.to_string().to_lowercase();
    window.days.is_empty() || window.days.iter().any(|known| known.to_lowercase() == name)
}

fn parse(window: &Window) -> Result<(NaiveTime, NaiveTime, Tz), Failure> {
    let time = |text: &str| {
        NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| {
            let text = format!("`{text}` of a maintenance window is not a time such as `02:30`");
            Failure::permanent("config::invalid_window", text)
        })
    };
    let zone = window.time_zone.parse::<Tz>().map_err(|_| {
        let text = format!("`{}` of a maintenance window is no IANA time zone", window.time_zone);
        Failure::permanent("config::invalid_window", text)
    })?;
    Ok((time(&window.from)?, time(&window.to)?, zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], from: &str, to: &str) -> Window {
        Window {
            days: days.iter().map(|day| (*day).to_owned()).collect(),
            from: from.into(),
            to: to.into(),
            time_zone: "Europe/Amsterdam".into(),
        }
    }

    fn open(windows: &[Window], at: &str) -> bool {
        state(windows, Timestamp::parse(at).unwrap()).unwrap()["open"] == true
    }

    #[test]
    fn windows_are_local_and_may_pass_midnight() {
        let nightly = [window(&["sat"], "22:00", "04:00")];
        assert!(open(&nightly, "2026-11-21T22:30:00Z"), "Saturday 23:30 local");
        assert!(open(&nightly, "2026-11-22T02:59:00Z"), "Sunday 03:59 local");
        assert!(!open(&nightly, "2026-11-22T03:00:00Z"), "Sunday 04:00 local");
        assert!(!open(&nightly, "2026-11-20T22:30:00Z"), "Friday");
        assert!(open(&[], "2026-11-20T22:30:00Z"));
    }

    #[test]
    fn the_next_opening_is_named() {
        let nightly = [window(&[], "22:00", "04:00")];
        let at = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let next = &state(&nightly, at).unwrap()["next_open"];
        assert_eq!(next, "2026-11-20T21:00:00.000Z");
        assert!(state(&[window(&[], "25:00", "04:00")], at).is_err());
    }
}
