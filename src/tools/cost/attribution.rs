//! Whose the cost is, and which days were unlike the others. PURE.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use schemars::JsonSchema;
use serde::Serialize;

use super::usage::{Line, Names, Period};
use crate::tools::analysis::anomaly::{self, LEAST_DAYS};

/// How many days before it a day is held against.
const MOST_DAYS_BEFORE: u64 = 28;

/// How much was used, and what that costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(in crate::tools) struct Amount {
    /// What was used, by unit: `DBU` of compute, `DSU` of storage.
    pub(in crate::tools) quantities: BTreeMap<String, f64>,
    /// What that costs by the list, by currency; empty: not measured.
    pub(in crate::tools) list_cost: BTreeMap<String, f64>,
    /// What the list has no price for, by unit: it is not in the cost.
    pub(in crate::tools) not_priced: BTreeMap<String, f64>,
}

impl Amount {
    fn add(&mut self, line: &Line) {
        *self.quantities.entry(line.unit.clone()).or_default() += line.quantity;
        match &line.cost {
            Some((cost, currency)) => {
                *self.list_cost.entry(currency.clone()).or_default() += cost;
            }
            None => *self.not_priced.entry(line.unit.clone()).or_default() += line.quantity,
        }
    }
}

/// A part of the whole.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(in crate::tools) struct Part {
    /// What it is: `shop/production/primary`, a day, `team=a`. What is deleted goes by its uid.
    pub(in crate::tools) name: String,
    /// How much.
    #[serde(flatten)]
    pub(in crate::tools) amount: Amount,
    /// Its share of all compute, from 0 to 1; absent where there was none.
    pub(in crate::tools) dbu_share: Option<f64>,
}

/// A day that was unlike those before it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(in crate::tools) struct Anomaly {
    /// The day.
    #[schemars(with = "String")]
    pub(in crate::tools) day: NaiveDate,
    /// The branch: `project/branch`.
    pub(in crate::tools) branch: String,
    /// The unit.
    pub(in crate::tools) unit: String,
    /// How much was used.
    pub(in crate::tools) quantity: f64,
    /// How much was usual: the median of the days before.
    pub(in crate::tools) usual: f64,
    /// How far that is, in robust standard deviations.
    pub(in crate::tools) distance: f64,
    /// How many days before it were looked at.
    pub(in crate::tools) days_before: usize,
    /// One sentence.
    pub(in crate::tools) text: String,
}

/// A branch whose days cannot be judged.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(in crate::tools) struct Unjudged {
    /// The branch: `project/branch`.
    pub(in crate::tools) branch: String,
    /// The unit.
    pub(in crate::tools) unit: String,
    /// Why.
    pub(in crate::tools) why: String,
}

/// The whole.
pub(in crate::tools) fn total(lines: &[Line]) -> Amount {
    let mut total = Amount::default();
    for line in lines {
        total.add(line);
    }
    total
}

/// The parts by a name of each line; those without one are left out. The largest first.
pub(in crate::tools) fn parts(lines: &[Line], name: impl Fn(&Line) -> Option<String>) -> Vec<Part> {
    let whole = total(lines).quantities.get("DBU").copied().unwrap_or(0.0);
    let mut amounts: BTreeMap<String, Amount> = BTreeMap::new();
    for line in lines {
        if let Some(name) = name(line) {
            amounts.entry(name).or_default().add(line);
        }
    }
    let part = |(name, amount): (String, Amount)| {
        let dbus = amount.quantities.get("DBU").copied();
        Part { dbu_share: dbus.filter(|_| whole > 0.0).map(|dbus| dbus / whole), name, amount }
    };
    let mut parts: Vec<Part> = amounts.into_iter().map(part).collect();
    let size = |part: &Part| {
        let money: f64 = part.amount.list_cost.values().sum();
        (money, part.amount.quantities.values().sum::<f64>())
    };
    parts.sort_by(|one, two| {
        let (one, two) = (size(one), size(two));
        two.0.total_cmp(&one.0).then_with(|| two.1.total_cmp(&one.1))
    });
    parts
}

/// The last `judged` complete days of each branch and unit, held against those before. A day without a row
/// after the first one is a day on which nothing was used.
pub(in crate::tools) fn anomalies(
    lines: &[Line],
    names: &Names,
    (period, judged, least): (Period, u32, f64),
) -> (Vec<Anomaly>, Vec<Unjudged>) {
    let mut series: BTreeMap<(String, String), BTreeMap<NaiveDate, f64>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.day <= period.complete) {
        let key = (branch(line, names), line.unit.clone());
        *series.entry(key).or_default().entry(line.day).or_default() += line.quantity;
    }
    let young: BTreeSet<_> = lines
        .iter()
        .map(|line| (branch(line, names), line.unit.clone()))
        .filter(|key| !series.contains_key(key))
        .collect();
    let (mut found, mut not) = (Vec::new(), Vec::new());
    let unjudged = |(branch, unit): &(String, String), why: String| Unjudged {
        branch: branch.clone(),
        unit: unit.clone(),
        why,
    };
    not.extend(young.iter().map(|key| {
        let why =
            format!("no complete day yet; {LEAST_DAYS} are needed before the first is judged");
        unjudged(key, why)
    }));
    for (key, days) in &series {
        for ago in (0..judged).rev() {
            let Some(day) = period.complete.checked_sub_days(Days::new(ago.into())) else {
                continue;
            };
            let before = before(days, day);
            let value = days.get(&day).copied().unwrap_or(0.0);
            match anomaly::judge(&before, value, least) {
                Ok(Some(unusual)) => found.push(told(key, (day, value), unusual, before.len())),
                // The newest day has most days before it.
                Err(too_few) if ago == 0 => not.push(unjudged(key, too_few.to_string())),
                Ok(None) | Err(_) => {}
            }
        }
    }
    found.sort_by(|one, two| two.distance.abs().total_cmp(&one.distance.abs()));
    (found, not)
}

/// The values of the days before one, from the first that had any.
fn before(days: &BTreeMap<NaiveDate, f64>, day: NaiveDate) -> Vec<f64> {
    let Some(first) = days.keys().next() else { return Vec::new() };
    let oldest = day.checked_sub_days(Days::new(MOST_DAYS_BEFORE)).unwrap_or(day);
    let from = (*first).max(oldest);
    from.iter_days()
        .take_while(|one| *one < day)
        .map(|one| days.get(&one).copied().unwrap_or(0.0))
        .collect()
}

fn told(
    (branch, unit): &(String, String),
    (day, quantity): (NaiveDate, f64),
    unusual: anomaly::Unusual,
    days_before: usize,
) -> Anomaly {
    let text = format!(
        "{branch} used {quantity:.3} {unit} on {day}; usual were {:.3} (median of {days_before} days)",
        unusual.usual
    );
    Anomaly {
        day,
        branch: branch.clone(),
        unit: unit.clone(),
        quantity,
        usual: unusual.usual,
        // JSON has no infinity.
        distance: unusual.distance.clamp(-1e9, 1e9),
        days_before,
        text,
    }
}

/// `project/branch`, as people call them.
pub(super) fn branch(line: &Line, names: &Names) -> String {
    let part = |uid: &Option<String>| names.name(uid.as_deref().unwrap_or("?")).to_owned();
    match &line.branch {
        Some(_) => format!("{}/{}", part(&line.project), part(&line.branch)),
        None => part(&line.project),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Span, Timestamp};

    fn line(day: NaiveDate, branch: &str, quantity: f64, cost: Option<f64>) -> Line {
        Line {
            day,
            sku: "COMPUTE".into(),
            unit: "DBU".into(),
            quantity,
            cost: cost.map(|cost| (cost, "USD".to_owned())),
            project: Some("p1".into()),
            branch: Some(branch.into()),
            endpoint: Some("e1".into()),
            tags: BTreeMap::new(),
        }
    }

    fn period() -> Period {
        let now = Timestamp::parse("2026-11-27T13:00:00Z").unwrap();
        Period::until(now, 30, Span::from_secs(12 * 3600))
    }

    fn days(count: u64) -> impl Iterator<Item = NaiveDate> {
        let complete = period().complete;
        (0..count).rev().map(move |ago| complete.checked_sub_days(Days::new(ago)).unwrap())
    }

    #[test]
    fn parts_add_up_and_what_has_no_price_is_said() {
        let day = period().complete;
        let lines = [
            line(day, "b1", 3.0, Some(6.0)),
            line(day, "b1", 1.0, None),
            line(day, "b2", 4.0, Some(1.0)),
        ];
        let whole = total(&lines);
        assert_eq!((whole.quantities["DBU"], whole.list_cost["USD"]), (8.0, 7.0));
        assert_eq!(whole.not_priced.get("DBU"), Some(&1.0));
        let parts = parts(&lines, |line| line.branch.clone());
        assert_eq!(parts.iter().map(|part| &*part.name).collect::<Vec<_>>(), ["b1", "b2"]);
        assert_eq!(parts[0].dbu_share, Some(0.5));
        let none = super::parts(&[line(day, "b", 1.0, None)], |line| line.branch.clone());
        assert!(none[0].amount.list_cost.is_empty(), "not measured is not zero");
    }

    #[test]
    fn a_day_that_is_unlike_the_others_is_told() {
        let names = Names::from(&[("p1", "shop"), ("b1", "production")]);
        let mut lines: Vec<Line> = days(21).map(|day| line(day, "b1", 10.0, None)).collect();
        let (found, not) = anomalies(&lines, &names, (period(), 1, 0.1));
        assert!(found.is_empty() && not.is_empty(), "{found:?} {not:?}");
        lines.push(line(period().complete, "b1", 25.0, None));
        let (found, _) = anomalies(&lines, &names, (period(), 1, 0.1));
        assert_eq!((found.len(), found[0].branch.as_str()), (1, "shop/production"));
        assert_eq!((found[0].quantity, found[0].usual, found[0].days_before), (35.0, 10.0, 20));
        // A day without a row is one without use.
        let gone: Vec<Line> =
            lines.iter().filter(|line| line.day < period().complete).cloned().collect();
        let (found, _) = anomalies(&gone, &names, (period(), 1, 0.1));
        assert_eq!((found.len(), found[0].quantity), (1, 0.0));
        // Today is not over.
        let mut today = lines.clone();
        today.retain(|line| line.quantity < 20.0);
        today.push(line(period().to, "b1", 500.0, None));
        assert!(anomalies(&today, &names, (period(), 1, 0.1)).0.is_empty());
    }

    #[test]
    fn too_little_history_is_said() {
        let names = Names::default();
        let lines: Vec<Line> = days(5).map(|day| line(day, "b1", 1.0, None)).collect();
        let (found, not) = anomalies(&lines, &names, (period(), 1, 0.0));
        assert!(found.is_empty());
        assert!(not[0].why.contains("4 days before"), "{not:?}");
        let (_, not) = anomalies(&[line(period().to, "b", 1.0, None)], &names, (period(), 1, 0.0));
        assert!(not[0].why.contains("no complete day"), "{not:?}");
    }
}
