//! `schedule`: when runs start by the clock.

use serde::{Deserialize, Serialize};

use crate::kernel::{Span, Timestamp};
use crate::workflow::cron::{CronError, CronSchedule};
use crate::workflow::diagnostic::Reporter;
use crate::workflow::fields::{self, Fields};
use crate::workflow::tree::Node;

/// A schedule, as it is kept for the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// Its id: written, or else workflow, cron and zone.
    pub id: String,
    /// Five-field Unix cron.
    pub cron: String,
    /// An IANA time zone.
    pub time_zone: String,
    /// What happens when an earlier run is not finished.
    pub overlap: Overlap,
    /// What happens with slots that were missed.
    pub catch_up: CatchUp,
    /// How old a missed slot may be.
    pub catch_up_window: Span,
    /// By how much a start may be delayed, to spread load.
    pub jitter: Span,
}

/// What happens when an earlier run is not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The slot is skipped.
    #[default]
    Skip,
    /// One run waits its turn.
    QueueOne,
    /// They run beside each other.
    Allow,
}

/// What happens with slots that were missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing.
    #[default]
    None,
    /// The latest one runs.
    Latest,
    /// All of them run.
    All,
}

pub(in crate::workflow) const OVERLAPS: &[(&str, Overlap)] =
    &[("skip", Overlap::Skip), ("queue_one", Overlap::QueueOne), ("allow", Overlap::Allow)];

const CATCH_UPS: &[(&str, CatchUp)] =
    &[("none", CatchUp::None), ("latest", CatchUp::Latest), ("all", CatchUp::All)];

const KEYS: &[&str] =
    &["id", "cron", "time_zone", "overlap", "catch_up", "catch_up_window", "jitter"];

impl ScheduleSpec {
    pub(in crate::workflow) fn parse(
        node: &Node,
        workflow: &str,
        reporter: &mut Reporter,
    ) -> Option<Self> {
        let map = Fields::open(node, "a schedule", KEYS, reporter)?;
        let id = map.get("id").and_then(|node| fields::identifier(node, reporter));
        let zone_node = map.get("time_zone");
        let zone = match zone_node {
            Some(node) => fields::literal(node, reporter)?.value,
            None => "UTC".to_owned(),
        };
        let overlap =
            map.get("overlap").and_then(|node| fields::choice(node, "overlap", OVERLAPS, reporter));
        let catch_up = map
            .get("catch_up")
            .and_then(|node| fields::choice(node, "catch_up", CATCH_UPS, reporter));
        let mut span =
            |key| map.get(key).and_then(|node| fields::duration(node, reporter)).map(|s| s.value);
        let (window, jitter) = (span("catch_up_window"), span("jitter"));
        let help = "write five fields: minute, hour, day of month, month, day of week";
        let cron_node = map.require("cron", help, reporter)?;
        let cron = fields::literal(cron_node, reporter)?.value;
        check(&cron, cron_node, &zone, zone_node, reporter)?;
        Some(Self {
            id: id.map_or_else(|| format!("{workflow} {cron} {zone}"), |id| id.value),
            cron,
            time_zone: zone,
            overlap: overlap.map_or_else(Overlap::default, |found| found.value),
            catch_up: catch_up.map_or_else(CatchUp::default, |found| found.value),
            catch_up_window: window.unwrap_or(Span::from_secs(3600)),
            jitter: jitter.unwrap_or_default(),
        })
    }
}

/// The calendar repeats: what never fires after this day never does.
const ANY_DAY: Timestamp = Timestamp::from_millis(1_735_689_600_000);

/// Reports a cron text that cannot be read or never fires, and an unknown zone.
fn check(
    cron: &str,
    cron_node: &Node,
    zone: &str,
    zone_node: Option<&Node>,
    reporter: &mut Reporter,
) -> Option<()> {
    let schedule = match CronSchedule::parse(cron, zone) {
        Ok(schedule) => schedule,
        Err(CronError::UnknownZone { zone, closest }) => {
            let place = zone_node.map_or(cron_node.place, |node| node.place);
            let help = match closest {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write an IANA name such as `Europe/Amsterdam`, or `UTC`".to_owned(),
            };
            let message = format!("unknown time zone `{zone}`");
            reporter.hinted("workflow::unknown_time_zone", place, message, help);
            return None;
        }
        Err(CronError::Field { column, message, help }) => {
            let source = reporter.source();
            let place =
                crate::workflow::locate::within(source, cron_node, column.saturating_sub(1));
            reporter.hinted("workflow::cron", place, message, help);
            return None;
        }
    };
    if schedule.next_after(ANY_DAY).is_none() {
        let help = "no year has such a day; check the day of the month and the month";
        reporter.hinted("workflow::cron", cron_node.place, "this schedule never fires", help);
        return None;
    }
    Some(())
}
