//! `lakeops schedule`

use chrono::SecondsFormat;
use clap::Subcommand;
use serde::Serialize;
use serde_json::json;

use super::run::Start;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::follow::Shows;
use crate::cli::session::Session;
use crate::cli::{library, occasions};
use crate::journal::store::{Append, Durability, Expect, Stream};
use crate::journal::{Event, JournalError, Principal, SlotFate};
use crate::kernel::Timestamp;
use crate::report::table::table;
use crate::schedule;
use crate::schedule::slots::{self, Look, Standing};
use crate::workflow::cron::{CronError, CronSchedule};
use crate::workflow::elements::ScheduleSpec;

/// What starts by the clock, and when
///
/// Five-field Unix cron in an IANA time zone. A job whose minute or hour begins with `*` follows the
/// clock: times that daylight saving skips do not exist, times that it repeats happen twice. Any other
/// job runs exactly once per matching time: right after the gap, or in the first pass.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  lakeops schedule list
  lakeops schedule next                                        what comes next, of all schedules
  lakeops schedule pause reset_staging --reason \"release week\"
  lakeops schedule next --cron '30 2 * * *' --time-zone Europe/Amsterdam --count 3 --output json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the schedules of all workflows
    List,
    /// Tell the next times, of a schedule or of any cron text
    Next(NextArgs),
    /// Suppress the slots of a schedule until it is resumed
    Pause(HoldArgs),
    /// Let a schedule go on; what came due while it was paused stays suppressed
    Resume(HoldArgs),
    /// Start a run of a schedule's workflow now, whatever its slots
    Trigger {
        /// The schedule's id, or its workflow
        schedule: String,
    },
}

#[derive(Debug, clap::Args)]
struct HoldArgs {
    /// The schedule's id, or its workflow
    schedule: String,
    /// Why; kept in the audit
    #[arg(long)]
    reason: String,
}

#[derive(Debug, clap::Args)]
struct NextArgs {
    /// A schedule's id or a workflow's name; otherwise all of them
    #[arg(conflicts_with = "cron")]
    schedule: Option<String>,
    /// Five fields: minute, hour, day of month, month, day of week
    #[arg(long, value_name = "EXPR")]
    cron: Option<String>,
    /// The IANA time zone of the cron text
    #[arg(long, value_name = "ZONE", default_value = "UTC", requires = "cron")]
    time_zone: String,
    /// Only times after this one (RFC 3339); otherwise after now
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<Timestamp>,
    /// How many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

fn instant(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "write a time such as `2026-11-27T10:00:00Z` or with `+01:00`".to_owned())
}

/// Prints what is asked for.
pub(crate) async fn run(session: &Session<'_>, args: Args) -> Result<Exit, CliError> {
    match &args.command {
        Command::List => list(session).await,
        Command::Pause(args) => hold(session, args, true).await,
        Command::Resume(args) => hold(session, args, false).await,
        Command::Trigger { schedule } => trigger(session, schedule).await,
        Command::Next(NextArgs { cron: Some(cron), time_zone, from, count, .. }) => {
            let from = from.unwrap_or_else(|| session.shell.clock.now());
            let schedule = CronSchedule::parse(cron, time_zone).map_err(unreadable)?;
            let found: Vec<String> = times(&schedule, from, *count).map(whole_seconds).collect();
            session.shell.out.data(&found, |_| {
                if found.is_empty() { "never\n".to_owned() } else { found.join("\n") + "\n" }
            })?;
            Ok(Exit::Done)
        }
        Command::Next(args) => upcoming(session, args),
    }
}

fn unreadable(error: CronError) -> CliError {
    match error {
        CronError::Field { column, message, help } => {
            CliError::usage_with(format!("{message} (at character {column})"), help)
        }
        CronError::UnknownZone { zone, closest } => CliError::usage_with(
            format!("unknown time zone `{zone}`"),
            match closest {
                Some(name) => format!("did you mean `{name}`?"),
                None => "write an IANA name such as `Europe/Amsterdam`, or `UTC`".to_owned(),
            },
        ),
    }
}

/// The times of a schedule after an instant.
fn times(
    schedule: &CronSchedule,
    from: Timestamp,
    count: u32,
) -> impl Iterator<Item = Timestamp> + '_ {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    std::iter::successors(schedule.next_after(from), |at| schedule.next_after(*at)).take(count)
}

/// Slots are whole minutes: without milliseconds.
fn whole_seconds(at: Timestamp) -> String {
    at.to_datetime().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A schedule of a workflow, as it is listed.
#[derive(Serialize)]
struct Listed<'a> {
    workflow: &'a str,
    #[serde(flatten)]
    spec: &'a ScheduleSpec,
    next: Option<Timestamp>,
    /// Who paused it, and why.
    paused: Option<(Principal, String)>,
    /// Slots up to this one are decided; none before a server has seen it.
    watermark: Option<Timestamp>,
    /// What became of the newest slot.
    last: Option<SlotFate>,
}

async fn list(session: &Session<'_>) -> Result<Exit, CliError> {
    let known = schedules(session)?;
    let now = session.shell.clock.now();
    let mut rows = Vec::new();
    for (workflow, spec) in &known {
        let cron = CronSchedule::parse(&spec.cron, &spec.time_zone).map_err(unreadable)?;
        let Standing { paused, watermark, last, .. } = match session.existing_journal()? {
            Some(journal) => schedule::standing(&*journal, &spec.id).await?,
            None => Standing::default(),
        };
        let last = last.map(|(_, fate)| fate);
        rows.push(Listed { workflow, spec, next: cron.next_after(now), paused, watermark, last });
    }
    session.shell.out.data(&rows, |style| {
        let cells = rows.iter().map(|row| {
            let state = match (&row.paused, row.last) {
                (Some((by, reason)), _) => format!("paused by {}: {reason}", by.name),
                (None, Some(fate)) => fate.as_str().replace('_', " "),
                (None, None) => "-".to_owned(),
            };
            vec![
                row.workflow.to_owned(),
                row.spec.cron.clone(),
                row.spec.time_zone.clone(),
                word(&row.spec.overlap),
                word(&row.spec.catch_up),
                state,
                row.next.map_or_else(|| "never".to_owned(), whole_seconds),
            ]
        });
        let headings = ["workflow", "cron", "zone", "overlap", "catch up", "last", "next"];
        table(style, &headings, cells.collect(), "no workflow has a schedule")
    })?;
    Ok(Exit::Done)
}

/// The one schedule that is meant: by its id, or by the workflow that has only one.
fn find(session: &Session<'_>, name: &str) -> Result<(String, ScheduleSpec), CliError> {
    let known = schedules(session)?;
    let mut found: Vec<_> = known.iter().filter(|(_, spec)| spec.id == name).collect();
    if found.is_empty() {
        found = known.iter().filter(|(workflow, _)| workflow == name).collect();
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let message = format!("no schedule and no scheduled workflow is called `{name}`");
            Err(CliError::usage_with(message, "`lakeops schedule list` shows them"))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|(_, spec)| spec.id.as_str()).collect();
            let message = format!("`{name}` has several schedules");
            Err(CliError::usage_with(message, format!("name one: {}", ids.join(", "))))
        }
    }
}

/// Records that a schedule is paused, or goes on.
async fn hold(session: &Session<'_>, args: &HoldArgs, pauses: bool) -> Result<Exit, CliError> {
    let (_, spec) = find(session, &args.schedule)?;
    let journal = session.journal()?;
    let by = session.principal()?;
    loop {
        let standing = schedule::standing(&*journal, &spec.id).await?;
        let (schedule, reason) = (spec.id.clone(), args.reason.clone());
        let mut events = Vec::new();
        if pauses {
            events.push(Event::SchedulePaused { schedule, by: by.clone(), reason });
        } else if standing.paused.is_none() {
            return Err(CliError::usage(format!("`{}` is not paused", spec.id)));
        } else {
            // What came due while it was paused stays suppressed, whether or not a server lived.
            let now = session.shell.clock.now();
            let cron = CronSchedule::parse(&spec.cron, &spec.time_zone).map_err(unreadable)?;
            let standing = &standing;
            let look =
                Look { spec: &spec, cron: &cron, standing, now, alive_since: now, unfinished: 0 };
            let rows = slots::decide(&look).rows;
            events.extend(rows.iter().map(|row| row.event(&spec.id, None, None)));
            events.push(Event::ScheduleResumed { schedule, by: by.clone(), reason });
        }
        let stream = Stream::schedule(&spec.id);
        let append = Append { stream, expect: Expect::Last(standing.last_seq), events };
        match journal.append(vec![append], Durability::Synced).await {
            Ok(_) => break,
            // A server decided on a slot at this moment.
            Err(JournalError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let state = if pauses { "paused" } else { "resumed" };
    let data = json!({ "schedule": spec.id, "state": state, "by": by });
    session.shell.out.data(&data, |_| format!("`{}` is {state}\n", spec.id))?;
    Ok(Exit::Done)
}

/// Starts a run of a schedule's workflow now, beside its slots.
async fn trigger(session: &Session<'_>, name: &str) -> Result<Exit, CliError> {
    let (workflow, _) = find(session, name)?;
    let wanted = library::Wanted::default();
    let plan = library::plan(session, &workflow, &wanted)?;
    let waits = super::serve::server_of(&session.config.state_dir()).is_none();
    let (connects, shows) = (true, Shows::Run);
    let start = Start { key: None, yes: false, waits, connects, shows };
    super::run::start(session, &plan, start).await
}

/// The word that stands for a policy in YAML.
fn word(policy: &impl Serialize) -> String {
    match serde_json::to_value(policy) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn upcoming(session: &Session<'_>, args: &NextArgs) -> Result<Exit, CliError> {
    #[derive(Serialize)]
    struct Upcoming {
        at: String,
        workflow: String,
        schedule: String,
    }
    let known = schedules(session)?;
    let wanted = |workflow: &str, spec: &ScheduleSpec| {
        args.schedule.as_ref().is_none_or(|name| name == workflow || *name == spec.id)
    };
    let from = args.from.unwrap_or_else(|| session.shell.clock.now());
    let mut found = Vec::new();
    for (workflow, spec) in known.iter().filter(|(workflow, spec)| wanted(workflow, spec)) {
        let cron = CronSchedule::parse(&spec.cron, &spec.time_zone).map_err(unreadable)?;
        found.extend(times(&cron, from, args.count).map(|at| (at, workflow, &spec.id)));
    }
    if found.is_empty()
        && let Some(name) = &args.schedule
    {
        let message = format!("no schedule and no scheduled workflow is called `{name}`");
        return Err(CliError::usage_with(message, "`lakeops schedule list` shows them"));
    }
    found.sort();
    found.truncate(usize::try_from(args.count).unwrap_or(usize::MAX));
    let rows: Vec<Upcoming> = found
        .into_iter()
        .map(|(at, workflow, schedule)| Upcoming {
            at: whole_seconds(at),
            workflow: workflow.clone(),
            schedule: schedule.clone(),
        })
        .collect();
    session.shell.out.data(&rows, |style| {
        let cells =
            rows.iter().map(|row| vec![row.at.clone(), row.workflow.clone(), row.schedule.clone()]);
        table(style, &["at", "workflow", "schedule"], cells.collect(), "nothing is scheduled")
    })?;
    Ok(Exit::Done)
}

/// The schedules of all workflows, with their workflow's name, in the order of the names.
fn schedules(session: &Session<'_>) -> Result<Vec<(String, ScheduleSpec)>, CliError> {
    let mut found = occasions::of_session(session)?.schedules;
    found.sort_by(|a, b| (&a.0, &a.1.id).cmp(&(&b.0, &b.1.id)));
    Ok(found)
}
