//! The figures as text. PURE.

use std::fmt::Write as _;
use std::time::Duration;

use super::{Goal, Incident, Operations, Spread};
use crate::report::fold::clock;
use crate::report::style::{Style, Tone, count, length};
use crate::report::table::table;

/// How many incidents are shown; JSON has all.
const SHOWN: usize = 20;

const NOT_MEASURED: &str = "not measured";

/// The figures for people.
pub fn text(style: Style, figures: &Operations) -> String {
    let mut text = String::new();
    let since = figures.since.map_or_else(|| "the first event".to_owned(), clock);
    let heading = format!("Operations from {since} to {}", clock(figures.until));
    let _ = writeln!(text, "{}\n", style.paint(Tone::Strong, &heading));
    text.push_str(&targets(style, &figures.targets));
    let _ = writeln!(text);
    text.push_str(&table(style, &["figure", "measured"], rows(figures), ""));
    let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "Incidents"));
    text.push_str(&incidents(style, &figures.incidents));
    if !figures.not_measured.is_empty() {
        let _ = writeln!(text, "\n{}", style.paint(Tone::Strong, "Not measured"));
        for missing in &figures.not_measured {
            let _ = writeln!(text, "  {}: {}", missing.figure, missing.why);
        }
    }
    text
}

fn targets(style: Style, goals: &[Goal]) -> String {
    let row = |goal: &Goal| {
        let is_share = goal.target.ends_with('%');
        let measured = goal.measured.map_or_else(
            || NOT_MEASURED.to_owned(),
            |value| if is_share { percent(value) } else { took(value) },
        );
        let verdict = match goal.met {
            Some(true) => "✓ met",
            Some(false) => "✗ missed",
            None => "·",
        };
        vec![goal.figure.to_owned(), measured, goal.target.clone(), verdict.to_owned()]
    };
    let rows = goals.iter().map(row).collect();
    table(style, &["figure", "measured", "target", ""], rows, "")
}

fn rows(figures: &Operations) -> Vec<Vec<String>> {
    let Operations { runs, healing, toil, approvals, .. } = figures;
    let row = |figure: &str, measured: String| vec![figure.to_owned(), measured];
    let rate = runs.success_rate.map_or_else(|| NOT_MEASURED.to_owned(), percent);
    let hours = match (toil.by_hand, toil.saved_hours) {
        (Some(each), Some(hours)) => format!("; {hours:.1} hours, at {each} by hand for each"),
        _ => "; in hours not measured".to_owned(),
    };
    let own = figures.own_queries.as_ref().map_or_else(
        || NOT_MEASURED.to_owned(),
        |own| {
            let part = own.share_of_active.map_or_else(
                || "nobody was at work".to_owned(),
                |share| format!("{} of the sessions at work", percent(share)),
            );
            let samples = many(own.samples, "sample");
            format!("{part}; {:.2} connections at a time, in {samples}", own.sessions)
        },
    );
    vec![
        row(
            "runs",
            format!(
                "{} started, {} by a schedule or an event; {} succeeded, {} failed, {} cancelled, {} open",
                runs.started,
                runs.by_themselves,
                runs.succeeded,
                runs.failed,
                runs.cancelled,
                runs.open
            ),
        ),
        row("success rate", rate),
        row("time to detect, at most", spread(figures.time_to_detect.as_ref())),
        row("time to resolve", spread(figures.time_to_resolve.as_ref())),
        row(
            "incidents",
            format!(
                "{}; {} over, {} healed, {} of them without a person",
                healing.incidents, healing.resolved, healing.healed, healing.healed_alone
            ),
        ),
        row(
            "toil saved",
            format!(
                "{} in {} without a person{hours}",
                many(toil.changes_without_a_person, "change"),
                many(toil.runs_without_a_person, "run")
            ),
        ),
        row("toil left", format!("{} of people", many(toil.deeds_of_people, "deed"))),
        row(
            "approvals",
            format!(
                "{} asked: {} approved, {} rejected, {} expired, {} by --yes, {} open",
                approvals.asked,
                approvals.approved,
                approvals.rejected,
                approvals.expired,
                approvals.by_yes,
                approvals.open
            ),
        ),
        row("time to decide", spread(approvals.latency.as_ref())),
        row("our own queries", own),
    ]
}

fn incidents(style: Style, incidents: &[Incident]) -> String {
    let row = |one: &Incident| {
        let took =
            |seconds: Option<f64>, without: &str| seconds.map_or_else(|| without.to_owned(), took);
        let how = match (&one.healed_by, one.healed_alone) {
            (Some(_), true) => "healed without a person",
            (Some(_), false) => "healed, with a person",
            (None, _) if one.resolved_at.is_some() => "over",
            (None, _) => "open",
        };
        vec![
            clock(one.detected_at),
            one.metric.clone(),
            one.place.clone(),
            one.level.clone(),
            took(one.detect_seconds, NOT_MEASURED),
            took(one.resolve_seconds, "-"),
            one.cause.clone().unwrap_or_else(|| "-".to_owned()),
            how.to_owned(),
        ]
    };
    let headings =
        ["detected", "metric", "place", "level", "within", "resolved in", "cause", "how"];
    let rows = incidents.iter().take(SHOWN).map(row).collect();
    let mut text = table(style, &headings, rows, "none");
    if incidents.len() > SHOWN {
        let rest = incidents.len() - SHOWN;
        let _ = writeln!(text, "and {rest} older: `--output json` has them all");
    }
    text
}

fn spread(spread: Option<&Spread>) -> String {
    spread.map_or_else(
        || NOT_MEASURED.to_owned(),
        |found| {
            format!(
                "mean {}, median {}, p90 {}, most {}, of {}",
                took(found.mean),
                took(found.median),
                took(found.p90),
                took(found.most),
                found.count
            )
        },
    )
}

fn many(number: u64, noun: &str) -> String {
    count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}

fn took(seconds: f64) -> String {
    length(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
