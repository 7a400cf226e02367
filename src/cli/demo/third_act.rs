//! The third act: bloat, a rehearsal on a branch, and a decision.

use super::cloud::{self, Cloud};
use super::error::DemoError;
use super::figures::{Rehearsal, Rewrite, compare};
use super::patient::TableFigures;
use super::record::Recorded;
use super::rules;
use super::teller::{Teller, Watched};
use super::worker::Call;
use crate::cli::prompt;
use crate::journal::Entry;
use crate::journal::event::{Decision, Event};
use crate::report::style::Tone;
use crate::report::{approvals, rehearsal};

pub(super) const WORKFLOW: &str = "rewrite_bloat";
/// From how much empty space on the demo's workflow asks for a rewrite.
const FULL_SIZE: &str = "full_size=16MiB";
/// The step that rewrites.
const REWRITE: &str = "rewrite";
/// The rule of the SOP that asks for a rewrite.
const WORTH_IT: &str = "a rewrite is worth it";
/// The exit code of a run that failed, as one does whose approval is rejected.
const FAILED: i32 = 1;
/// The exit code of a decision that is refused.
const REFUSED: i32 = 2;
/// The exit code of a run that waits for a decision.
const WAITS: i32 = 3;
/// Who the demo acts as when nobody is asked.
const AS_DEMO: (&str, &str) = ("LAKEOPS_ACTOR", "demo");

/// Who decides about the rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decider {
    /// The person at the terminal.
    Person,
    /// The demo itself, for its own database.
    Demo,
}

pub(super) async fn tell(
    teller: &mut Teller<'_>,
    cloud: &Cloud,
    decider: Decider,
) -> Result<Rewrite, DemoError> {
    teller.screen.act(3, "Bloat, and a decision that no program may take");
    let (before, from) = (teller.patient.tables().await?, teller.clock.now());
    let call = asked(&[]);
    teller.expect(Watched::Newest(WORKFLOW), &call, &[WAITS]).await?;
    let waiting = teller.record.run(WORKFLOW).await?;
    let run = waiting.view.run_id.clone();
    why(teller, &waiting);
    let refused = decide_blindly(teller, &run).await?;
    let rehearsal = rehearse(teller, &before).await?;
    let branches = cloud.branches().await?;
    let statements = decide(teller, decider, &run).await?;
    let recorded = teller.record.run_of(&run).await?;
    let after = teller.patient.tables().await?;
    let payments = teller.load.since(from);
    teller.screen.say(&format!("Payments, while all this went on: {payments}."));
    let decision = decision(&recorded.entries);
    Ok(Rewrite {
        run_id: run,
        outcome: recorded.view.outcome,
        refused,
        rehearsal,
        branches_left: branches.into_iter().filter(|branch| !cloud::is_first(branch)).collect(),
        rewritten: recorded.applied(REWRITE),
        decided_by: decision.as_ref().map(|(_, by, _)| by.clone()),
        approved: decision.as_ref().is_some_and(|(approved, ..)| *approved),
        decided_first: is_decided_first(&recorded.entries),
        statements,
        tables: compare(&before, &after),
        payments,
    })
}

/// The command line that asks for the rewrite.
fn asked(more: &[&str]) -> Call {
    let asks = ["run", WORKFLOW, "--target", cloud::TARGET, "-p", FULL_SIZE];
    Call::new(&[&asks[..], more].concat())
}

fn why(teller: &mut Teller<'_>, waiting: &Recorded) {
    teller.screen.line("");
    let decided = waiting.view.step("decide").map(rules::held).unwrap_or_default();
    for rule in decided.into_iter().filter(|rule| rule.name == WORTH_IT) {
        teller.screen.say(&format!("sops/bloat.rhai: {}", rule.text));
        teller.screen.faint(&rule.values);
    }
    teller.screen.say(
        "It would lock everybody out of the table. The workflow demands that it was rehearsed first:",
    );
}

/// Tries to approve what nobody has tried. What is said to that, when it is refused.
async fn decide_blindly(teller: &mut Teller<'_>, run: &str) -> Result<Option<String>, DemoError> {
    let (name, actor) = AS_DEMO;
    let call = Call::new(&["approve", run, "--reason", "it will be fine"]).with_var(name, actor);
    let ended = teller.follow(Watched::Run(run), &call).await?;
    if ended.code() != Some(REFUSED) {
        return Ok(None);
    }
    let style = teller.screen.style;
    teller.screen.block(&style.paint(Tone::Bad, ended.said.trim()), 5);
    let said = ended.said.lines().map(str::trim).find(|line| !line.is_empty());
    Ok(Some(said.unwrap_or_default().to_owned()))
}

/// Tries it on a branch, and shows what that showed.
async fn rehearse(
    teller: &mut Teller<'_>,
    before: &[TableFigures],
) -> Result<Rehearsal, DemoError> {
    teller.screen.line("");
    teller.expect(Watched::Newest(WORKFLOW), &asked(&["--rehearse"]), &[0]).await?;
    let rehearsed = teller.record.run(WORKFLOW).await?;
    let after = teller.patient.tables().await?;
    let run = rehearsed.view.run_id.clone();
    let Some(view) = &rehearsed.view.rehearsal else {
        return Err(DemoError::NoRun { workflow: format!("{WORKFLOW} --rehearse") });
    };
    teller.screen.line("");
    teller.screen.say("What it showed, kept as evidence for exactly these statements:");
    let style = teller.screen.style;
    teller.screen.block(&rehearsal::rehearsal(style, view), 1);
    Ok(Rehearsal::of(run, view, &compare(before, &after)))
}

/// Shows what waits, and has it decided. Returns the statements that were shown.
async fn decide(
    teller: &mut Teller<'_>,
    decider: Decider,
    run: &str,
) -> Result<Vec<String>, DemoError> {
    let recorded = teller.record.run_of(run).await?;
    let Some(approval) = recorded.view.open_approvals().next() else {
        return Err(DemoError::NotAsked { run: run.to_owned() });
    };
    let style = teller.screen.style;
    teller.screen.line("");
    teller.screen.say(&approvals::one(style, &recorded.view, approval));
    let changes = approval.sets.values().flat_map(|set| &set.changes);
    let statements = changes.map(|change| change.operation.to_string()).collect();
    teller.screen.line("");
    let (verb, reason, as_demo) = match decider {
        Decider::Person if prompt::confirm("   Approve exactly this? [y/N] ").await => {
            ("approve", "approved in the demo", false)
        }
        Decider::Person => ("reject", "rejected in the demo", false),
        Decider::Demo => {
            teller.screen.say(
                "Nobody is asked here: the demo approves as itself, for its own database only.",
            );
            ("approve", "nobody was asked; the demo's own throw-away database", true)
        }
    };
    // Whatever waits now, only what was shown is decided about.
    let digest = approval.request.digest.short();
    let call = Call::new(&[verb, run, "--digest", digest, "--reason", reason]);
    let call = if as_demo { call.with_var(AS_DEMO.0, AS_DEMO.1) } else { call };
    let codes: &[i32] = if verb == "approve" { &[0] } else { &[0, FAILED] };
    teller.expect(Watched::Run(run), &call, codes).await?;
    Ok(statements)
}

fn decision(entries: &[Entry]) -> Option<(bool, String, u64)> {
    entries.iter().find_map(|entry| match &entry.event {
        Event::ApprovalDecided { decision, by, .. } => {
            Some((*decision == Decision::Approved, by.name.clone(), entry.seq))
        }
        _ => None,
    })
}

/// Whether no rewrite began before it was decided about.
fn is_decided_first(entries: &[Entry]) -> bool {
    let Some((_, _, decided)) = decision(entries) else { return false };
    entries.iter().all(|entry| match &entry.event {
        Event::ChangeStarted { step, .. } => step != REWRITE || entry.seq > decided,
        _ => true,
    })
}
