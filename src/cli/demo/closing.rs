//! The end of the story: before and after, the timeline, and what was promised.

use super::figures::{Report, size};
use super::screen::Screen;
use crate::report::style::{Tone, count, length};

pub(super) fn tell(screen: &mut Screen, report: &Report) {
    screen.act(4, "What came of it");
    sessions(screen, report);
    tables(screen, report);
    timeline(screen, report);
    let style = screen.style;
    screen.say(&style.paint(Tone::Strong, "Promises, held against what was measured"));
    let claims = report.promises.iter().map(|promise| promise.claim.chars().count());
    let width = claims.max().unwrap_or(0);
    for promise in &report.promises {
        let (tone, mark) = if promise.held { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let claim = format!("{:<width$}", promise.claim);
        let measured = style.paint(Tone::Faint, &promise.measured);
        screen.say(&format!("{} {claim}  {measured}", style.paint(tone, mark)));
    }
    screen.line("");
    let took = length(std::time::Duration::from_secs_f64(report.seconds.max(0.0)));
    let broken = report.promises.iter().filter(|promise| !promise.held).count();
    let verdict = if report.ok {
        style
            .paint(Tone::Good, &format!("Everything held, in {took}. Nothing of it runs any more."))
    } else {
        let broken = count(broken, "promise");
        style.paint(Tone::Bad, &format!("{broken} did not hold, see above. Nothing runs any more."))
    };
    screen.say(&verdict);
    screen.say("The journal is still there. Look further:");
    for command in &report.look_further {
        screen.faint(&format!("  {command}"));
    }
}

fn sessions(screen: &mut Screen, report: &Report) {
    let seen = &report.connections;
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    let stretches = [
        ("before", &seen.healthy, None),
        ("blocked", &seen.blocked, Some(seen.blocked_before)),
        ("healed", &seen.healed, Some(seen.blocked_after)),
        ("during act 2", &report.bloat.payments, None),
        ("during act 3", &report.rewrite.payments, None),
    ];
    let rows = stretches.map(|(when, load, waiting)| {
        vec![
            when.to_owned(),
            format!("{:.0}", load.per_second),
            ms(load.median_ms),
            ms(load.slowest_ms),
            waiting.map_or_else(|| "-".to_owned(), |waiting| waiting.to_string()),
        ]
    });
    let headings = ["payments", "per second", "median", "slowest", "waiting"];
    screen.table(&headings, rows.to_vec(), "nothing was measured");
    screen.line("");
}

fn tables(screen: &mut Screen, report: &Report) {
    let (bloat, rewrite) = (&report.bloat, &report.rewrite);
    let vacuumed = bloat.tables.iter().filter(|table| bloat.vacuumed.contains(&table.name));
    let rewritten = rewrite.tables.iter().filter(|table| rewrite.rewritten.contains(&table.name));
    let touched = vacuumed.map(|table| (table, "vacuumed"));
    let touched = touched.chain(rewritten.map(|table| (table, "rewritten")));
    let rows = touched.map(|(table, how)| {
        vec![
            table.name.clone(),
            how.to_owned(),
            size(table.bytes_before),
            size(table.bytes_after),
            table.dead_before.to_string(),
            table.dead_after.to_string(),
        ]
    });
    let headings = ["table", "was", "size", "then", "dead rows", "then"];
    screen.table(&headings, rows.collect(), "no table was touched");
    screen.line("");
}

fn timeline(screen: &mut Screen, report: &Report) {
    let style = screen.style;
    screen.say(&style.paint(Tone::Strong, "Timeline, from the journal (UTC)"));
    for moment in &report.timeline {
        let time = moment.at.to_datetime().format("%H:%M:%S%.3f").to_string();
        let step = moment.step.as_deref().unwrap_or(&moment.workflow);
        let what = style.fit(&moment.what, 44);
        screen.say(&format!("{} {step:<26} {what}", style.paint(Tone::Faint, &time)));
    }
    screen.line("");
}
