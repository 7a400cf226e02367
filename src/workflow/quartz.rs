//! Unix cron as Quartz writes it, for schedulers that take nothing else. PURE.
//!
//! Quartz has a field of seconds in front, counts week days from 1, Sunday, and wants `?` in exactly one of
//! the two day fields. Week days are written by name here, so that nobody has to count. What fires when
//! either day field matches takes two expressions, and what needs both at once has none.

use std::collections::BTreeSet;

use super::cron::{CronError, Numbers, list, numbers};

const WEEK_DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron text that Quartz cannot say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuartzError {
    /// It is no cron text.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// It wants a day of the month that is also a day of the week.
    #[error("Quartz cannot ask for a day of the month that is also a certain day of the week")]
    BothDays,
}

/// The Quartz expressions of a five-field cron text: it fires when one of them does.
pub fn quartz(cron: &str) -> Result<Vec<String>, QuartzError> {
    let [minute, hour, day, month, week_day] = numbers(cron)?;
    let text = |day: &str, week: &str| {
        let (minute, hour) = (steps(&minute, 0, 59), steps(&hour, 0, 23));
        format!("0 {minute} {hour} {day} {} {week}", steps(&month, 1, 12))
    };
    let (any_day, any_week_day) = (day.values.len() == 31, week_day.values.len() == 7);
    let days = steps(&day, 1, 31);
    let names = week_days(&week_day.values);
    if any_week_day {
        // Of two fields that are both given either counts, and one of them is every day.
        let days = if day.is_star || week_day.is_star { days.as_str() } else { "*" };
        Ok(vec![text(days, "?")])
    } else if any_day {
        let either = !day.is_star && !week_day.is_star;
        Ok(vec![if either { text("*", "?") } else { text("?", &names) }])
    } else if day.is_star || week_day.is_star {
        Err(QuartzError::BothDays)
    } else {
        Ok(vec![text(&days, "?"), text("?", &names)])
    }
}

/// `*`, `0/5`, or a list.
fn steps(field: &Numbers, least: u8, most: u8) -> String {
    let values: Vec<u8> = field.values.iter().copied().collect();
    if values.len() == usize::from(most - least) + 1 {
        return "*".to_owned();
    }
    let progression = values.windows(2).map(|pair| pair[1] - pair[0]).collect::<BTreeSet<_>>();
    if let ([first, _, .., last], Some(step)) = (&values[..], progression.first())
        && progression.len() == 1
        && *step > 1
        && last + step > most
    {
        return format!("{first}/{step}");
    }
    list(&field.values)
}

fn week_days(values: &BTreeSet<u8>) -> String {
    let names = values.iter().filter_map(|day| WEEK_DAYS.get(usize::from(*day)));
    names.copied().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_ones() {
        for (cron, expected) in [
            ("*/5 * * * *", "0 0/5 * * * ?"),
            ("* * * * *", "0 * * * * ?"),
            ("*/15 * * * *", "0 0/15 * * * ?"),
            ("0 * * * *", "0 0 * * * ?"),
            ("0 */6 * * *", "0 0 0/6 * * ?"),
            ("0 2 * * *", "0 0 2 * * ?"),
            ("0 4 * * 0", "0 0 4 ? * SUN"),
            ("0 4 * * 7", "0 0 4 ? * SUN"),
            ("15 */6 * * *", "0 15 0/6 * * ?"),
            ("30 8 * * mon-fri", "0 30 8 ? * MON,TUE,WED,THU,FRI"),
            ("0 0 1 */3 *", "0 0 0 1 1/3 ?"),
            ("*/7 3,9 */10 * *", "0 0/7 3,9 1/10 * ?"),
            ("5,10 * * * *", "0 5,10 * * * ?"),
            ("0 0 * * 0-6", "0 0 0 * * ?"),
            ("@weekly", "0 0 0 ? * SUN"),
        ] {
            assert_eq!(quartz(cron).as_deref(), Ok([expected.to_owned()].as_slice()), "{cron}");
        }
    }

    #[test]
    fn two_day_fields_take_two_or_none() {
        let both = ["0 0 0 15 * ?", "0 0 0 ? * FRI"].map(str::to_owned);
        assert_eq!(quartz("0 0 15 * fri"), Ok(both.to_vec()));
        assert_eq!(quartz("0 0 */2 * fri"), Err(QuartzError::BothDays));
        // Every day of the month, or every day of the week, is every day.
        assert_eq!(quartz("0 0 1-31 * fri"), Ok(vec!["0 0 0 * * ?".to_owned()]));
        assert_eq!(quartz("0 0 15 * 0-6"), Ok(vec!["0 0 0 * * ?".to_owned()]));
        assert!(matches!(quartz("0 0 32 * *"), Err(QuartzError::Cron(_))));
    }

    #[test]
    fn a_step_must_reach_the_end() {
        // 0, 7, 14 … 56: the next would be 63. 0, 10, 20 stops in the middle.
        assert_eq!(quartz("*/7 0 * * *").unwrap(), ["0 0/7 0 * * ?"]);
        assert_eq!(quartz("0-20/10 0 * * *").unwrap(), ["0 0,10,20 0 * * ?"]);
    }
}
