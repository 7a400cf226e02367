//! The billing tables: which question is asked, and how an answer is read.
//!
//! A row of `system.billing.usage` may be a correction of another one: all of them are summed. The price is
//! the list price that was valid when the use ended, so it is no invoice: discounts are not in it.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use serde::Deserialize;
use serde_json::Value;

use crate::kernel::{Failure, Span, Timestamp};
use crate::lakebase::{self, ReadApi};

/// The days that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::tools) struct Period {
    /// The first.
    pub(in crate::tools) from: NaiveDate,
    /// The last: today.
    pub(in crate::tools) to: NaiveDate,
    /// The last day whose rows have all arrived, as far as can be known.
    pub(in crate::tools) complete: NaiveDate,
}

impl Period {
    /// The last `days` days up to today. Rows of a day have arrived once it has been over for `settle`.
    pub(in crate::tools) fn until(now: Timestamp, days: u32, settle: Span) -> Self {
        let to = now.to_datetime().date_naive();
        let before =
            |day: NaiveDate, days: u32| day.checked_sub_days(Days::new(days.into())).unwrap_or(day);
        let settled = now.to_datetime() - settle.0;
        Self { from: before(to, days), to, complete: before(settled.date_naive(), 1) }
    }
}

/// What is asked: the days, the project and the labels by which is divided.
#[derive(Clone, Debug)]
pub(in crate::tools) struct Reading<'a> {
    /// The days.
    pub(in crate::tools) period: Period,
    /// The uid of the only project that is meant.
    pub(in crate::tools) project: Option<&'a str>,
    /// The keys of labels.
    pub(in crate::tools) tags: &'a [String],
}

/// What one thing used on one day.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::tools) struct Line {
    /// The day.
    pub(in crate::tools) day: NaiveDate,
    /// What was sold.
    pub(in crate::tools) sku: String,
    /// What it is counted in: `DBU`, `DSU`.
    pub(in crate::tools) unit: String,
    /// How much.
    pub(in crate::tools) quantity: f64,
    /// What that costs by the list, and in which currency; `None`: the list has no price for it.
    pub(in crate::tools) cost: Option<(f64, String)>,
    /// The uid of the project, or the name of an instance of the older product.
    pub(in crate::tools) project: Option<String>,
    /// The uid of the branch.
    pub(in crate::tools) branch: Option<String>,
    /// The uid of the endpoint; storage has none.
    pub(in crate::tools) endpoint: Option<String>,
    /// The labels that were asked for, those that it has.
    pub(in crate::tools) tags: BTreeMap<String, String>,
}

/// A row as the warehouse answers it: texts and nulls.
#[derive(Deserialize)]
struct Row {
    day: String,
    sku: Option<String>,
    unit: Option<String>,
    project: Option<String>,
    branch: Option<String>,
    endpoint: Option<String>,
    instance: Option<String>,
    currency: Option<String>,
    quantity: Option<String>,
    cost: Option<String>,
    #[serde(flatten)]
    more: BTreeMap<String, Option<String>>,
}

impl Reading<'_> {
    /// Asks the warehouse of the connection.
    pub(in crate::tools) async fn read(&self, api: &dyn ReadApi) -> Result<Vec<Line>, Failure> {
        let rows = api.select(&self.statement()?).await?;
        rows.into_iter().map(|row| self.line(row)).collect()
    }

    /// The question. What enters its text is checked: dates, uids and keys of labels need no quoting.
    fn statement(&self) -> Result<String, Failure> {
        let plain = |text: &str, what: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/@ ".contains(c);
            if !text.is_empty() && text.chars().all(is_plain) {
                return Ok(text.to_owned());
            }
            let text =
                format!("{what} `{text}` cannot be written into a question to the warehouse");
            Err(Failure::permanent("cost::refused", text)
                .with_help("letters, digits, blanks and `_-.:/@` can"))
        };
        let tags: Vec<_> =
            self.tags.iter().map(|key| plain(key, "the tag")).collect::<Result<_, _>>()?;
        let tags: Vec<String> = tags
            .iter()
            .enumerate()
            .map(|(place, key)| format!("u.custom_tags['{key}'] as tag_{place},\n  "))
            .collect();
        let tags = tags.concat();
        let project = match self.project {
            Some(uid) => {
                format!("\n  and u.usage_metadata.project_id = '{}'", plain(uid, "the project")?)
            }
            None => String::new(),
        };
        let columns = 8 + self.tags.len();
        let group: Vec<_> = (1..=columns).map(|place| place.to_string()).collect();
        Ok(format!(
            "select
  cast(u.usage_date as string) as day,
  u.sku_name as sku,
  u.usage_unit as unit,
  u.usage_metadata.project_id as project,
  u.usage_metadata.branch_id as branch,
  u.usage_metadata.endpoint_id as endpoint,
  u.usage_metadata.database_instance_id as instance,
  {tags}p.currency_code as currency,
  cast(sum(u.usage_quantity) as string) as quantity,
  cast(sum(u.usage_quantity * p.pricing.default) as string) as cost
from system.billing.usage as u
left join system.billing.list_prices as p
  on u.sku_name = p.sku_name and u.cloud = p.cloud and u.usage_unit = p.usage_unit
  and u.usage_end_time >= p.price_start_time
  and (p.price_end_time is null or u.usage_end_time < p.price_end_time)
where u.billing_origin_product in ('LAKEBASE', 'DATABASE')
  and u.usage_date >= cast('{from}' as date)
  and u.usage_date <= cast('{to}' as date){project}
group by {group}
order by 1",
            from = self.period.from,
            to = self.period.to,
            group = group.join(", "),
        ))
    }

    fn line(&self, row: Value) -> Result<Line, Failure> {
        let unreadable = |why: String| {
            Failure::permanent("cost::unreadable", format!("a row of the billing tables {why}"))
        };
        let row: Row =
            serde_json::from_value(row).map_err(|error| unreadable(format!("is odd: {error}")))?;
        let number = |text: &str| {
            let number: f64 = text.parse().map_err(|_| unreadable(format!("counts `{text}`")))?;
            if number.is_finite() {
                Ok(number)
            } else {
                Err(unreadable(format!("counts {number}")))
            }
        };
        let day = NaiveDate::parse_from_str(&row.day, "%Y-%m-%d")
            .map_err(|_| unreadable(format!("is of the day `{}`", row.day)))?;
        let cost = match (row.cost.as_deref(), row.currency) {
            (Some(cost), Some(currency)) => Some((number(cost)?, currency)),
            _ => None,
        };
        let tag = |(place, key): (usize, &String)| {
            let value = row.more.get(&format!("tag_{place}"))?.clone()?;
            Some((key.clone(), value))
        };
        Ok(Line {
            day,
            sku: row.sku.unwrap_or_default(),
            unit: row.unit.unwrap_or_default(),
            quantity: number(row.quantity.as_deref().unwrap_or("0"))?,
            cost,
            project: row.project.or(row.instance),
            branch: row.branch,
            endpoint: row.endpoint,
            tags: self.tags.iter().enumerate().filter_map(tag).collect(),
        })
    }
}

/// What people call what the billing tables know by uid. What is deleted has no name any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tools) struct Names {
    names: BTreeMap<String, String>,
}

impl Names {
    /// Asks the workspace for the names of what stands in the lines.
    pub(in crate::tools) async fn of(
        api: &dyn ReadApi,
        projects: &[lakebase::Project],
        lines: &[Line],
    ) -> Result<Self, Failure> {
        let uids =
            |of: fn(&Line) -> Option<&String>| lines.iter().filter_map(of).collect::<BTreeSet<_>>();
        let used = uids(|line| line.project.as_ref());
        let with_endpoints = uids(|line| line.endpoint.as_ref().and(line.branch.as_ref()));
        let mut names = BTreeMap::new();
        for project in projects.iter().filter(|project| used.contains(&project.uid)) {
            names.insert(project.uid.clone(), project.id().to_owned());
            for branch in lakebase::branches(api, project.id()).await? {
                names.insert(branch.uid.clone(), branch.id().to_owned());
                if !with_endpoints.contains(&branch.uid) {
                    continue;
                }
                for endpoint in lakebase::endpoints(api, project.id(), branch.id()).await? {
                    names.insert(endpoint.uid.clone(), endpoint.id().to_owned());
                }
            }
        }
        Ok(Self { names })
    }

    /// What it is called: its name, else its uid.
    pub(in crate::tools) fn name<'a>(&'a self, uid: &'a str) -> &'a str {
        self.names.get(uid).map_or(uid, String::as_str)
    }

    /// The same for what a line may not have.
    pub(in crate::tools) fn owned(&self, uid: Option<&str>) -> Option<String> {
        uid.map(|uid| self.name(uid).to_owned())
    }

    #[cfg(test)]
    pub(super) fn from(pairs: &[(&str, &str)]) -> Self {
        let names = pairs.iter().map(|(uid, name)| ((*uid).to_owned(), (*name).to_owned()));
        Self { names: names.collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    fn reading<'a>(project: Option<&'a str>, tags: &'a [String]) -> Reading<'a> {
        let now = Timestamp::parse("2026-11-27T06:00:00Z").unwrap();
        Reading { period: Period::until(now, 30, Span::from_secs(12 * 3600)), project, tags }
    }

    #[test]
    fn a_day_is_complete_once_its_rows_had_time_to_arrive() {
        let period = reading(None, &[]).period;
        assert_eq!((period.from, period.to), (day("2026-10-28"), day("2026-11-27")));
        assert_eq!(period.complete, day("2026-11-25"), "yesterday ended six hours ago");
        let noon = Timestamp::parse("2026-11-27T12:00:00Z").unwrap();
        let period = Period::until(noon, 30, Span::from_secs(12 * 3600));
        assert_eq!(period.complete, day("2026-11-26"));
    }

    #[test]
    fn nothing_that_needs_quotes_gets_into_the_question() {
        let tags = ["team".to_owned()];
        let text = reading(Some("a-b"), &tags).statement().unwrap();
        assert!(text.contains("u.custom_tags['team'] as tag_0"), "{text}");
        assert!(text.contains("project_id = 'a-b'"), "{text}");
        assert!(text.contains("group by 1, 2, 3, 4, 5, 6, 7, 8, 9\n"), "{text}");
        let quoted = ["te'am".to_owned()];
        assert_eq!(reading(None, &quoted).statement().unwrap_err().code, "cost::refused");
        assert!(reading(Some("a' or true --"), &[]).statement().is_err());
    }

    #[test]
    fn what_has_no_price_is_not_free() {
        let tags = ["team".to_owned()];
        let row = json!({"day": "2026-11-26", "sku": "S", "unit": "DBU", "project": "p", "branch": null,
            "endpoint": null, "instance": null, "currency": null, "quantity": "1.5", "cost": null,
            "tag_0": "a"});
        let reading = reading(None, &tags);
        let line = reading.line(row.clone()).unwrap();
        assert_eq!((line.cost, line.quantity, line.tags["team"].as_str()), (None, 1.5, "a"));
        let mut priced = row.clone();
        priced["cost"] = json!("3.0");
        priced["currency"] = json!("USD");
        assert_eq!(reading.line(priced).unwrap().cost, Some((3.0, "USD".to_owned())));
        let mut odd = row;
        odd["quantity"] = json!("many");
        assert_eq!(reading.line(odd).unwrap_err().code, "cost::unreadable");
    }
}
