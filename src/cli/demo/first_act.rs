//! The first act: a session forgot its transaction, and everybody waits.

use std::time::Duration;

use serde_json::{Value, json};

use super::error::DemoError;
use super::figures::Connections;
use super::load::{Forgotten, WORKERS};
use super::record::Recorded;
use super::teller::{Teller, Watched};
use super::worker::Call;
use super::{cloud, lock_tree, rules};
use crate::config::Settings;
use crate::kernel::Operation;
use crate::report::changes;
use crate::report::style::{Tone, count};
use crate::tools::context::ReadContext;
use crate::tools::{AnyTool, Catalog};

pub(super) const WORKFLOW: &str = "relieve_connections";
const TOOL: &str = "monitor_connections";
/// How long the load is looked at.
const WATCH: Duration = Duration::from_millis(1500);
/// Longer than the patience of the workflow and of its SOP.
const SUFFERING: Duration = Duration::from_millis(5300);
/// The sickness breaks out within this.
const OUTBREAK: Duration = Duration::from_secs(10);
/// Waits that are shorter are what any busy table has.
const MOMENT: Duration = Duration::from_millis(500);

pub(super) async fn tell(teller: &mut Teller<'_>) -> Result<Connections, DemoError> {
    teller.screen.act(1, "A forgotten transaction");
    let healthy = teller.load.watch(WATCH).await;
    teller.screen.say(&format!("{WORKERS} checkout sessions make payments: {healthy}."));
    teller.screen.say(
        "Now a report changes one row of shop.branches, and forgets to finish its transaction.",
    );
    let _forgotten = Forgotten::begin(teller.patient).await?;
    outbreak(teller).await?;
    let blocked = teller.load.watch(SUFFERING).await;
    let blocked_before = teller.patient.blocked(MOMENT).await?;
    teller
        .screen
        .say(&format!("Payments: {blocked}. The lock tree, as monitor_connections sees it:"));
    let seen = look(teller).await?;
    let style = teller.screen.style;
    for line in lock_tree::draw(&seen).lines() {
        teller.screen.line(&format!("     {}", style.paint(Tone::Warn, line)));
    }
    teller.screen.line("");
    let call = Call::new(&["run", WORKFLOW, "--target", cloud::TARGET]);
    teller.expect(Watched::Newest(WORKFLOW), &call, &[0]).await?;
    let recorded = teller.record.run(WORKFLOW).await?;
    explain(teller, &recorded);
    let healed = teller.load.watch(WATCH).await;
    let blocked_after = teller.patient.blocked(MOMENT).await?;
    teller.screen.say(&format!(
        "Payments: {}; {} wait.",
        healed,
        count(usize::try_from(blocked_after).unwrap_or(0), "session")
    ));
    let ended = recorded.view.step("heal").and_then(|step| step.output["ended"].as_u64());
    Ok(Connections {
        run_id: recorded.view.run_id,
        outcome: recorded.view.outcome,
        healthy,
        blocked,
        healed,
        blocked_before,
        blocked_after,
        ended: ended.unwrap_or(0),
    })
}

/// Waits until everybody is stuck.
async fn outbreak(teller: &Teller<'_>) -> Result<(), DemoError> {
    let clock = &*teller.clock;
    let until = clock.now().plus(OUTBREAK);
    loop {
        let blocked = teller.patient.blocked(Duration::ZERO).await?;
        if blocked >= WORKERS as u64 {
            return Ok(());
        }
        if clock.now() >= until {
            let seconds = OUTBREAK.as_secs();
            return Err(DemoError::NotBlocked { seconds, blocked, wanted: WORKERS });
        }
        clock.sleep_until(clock.now().plus(Duration::from_millis(20))).await;
    }
}

/// Runs the tool itself, with the read-only context that every tool gets.
async fn look(teller: &Teller<'_>) -> Result<Value, DemoError> {
    let Some(AnyTool::Read(tool)) = Catalog::builtin().find(TOOL) else { return Ok(Value::Null) };
    let reader = teller.patient.reader();
    let (settings, target) = (Settings::default(), cloud::target());
    let context = ReadContext::new(&reader, &*teller.clock, &settings, &target);
    let output = tool.read(&context, json!({})).await;
    reader.close().await;
    output.map(|output| output.value).map_err(|failure| DemoError::Tool { tool: TOOL, failure })
}

/// Why it was decided so, and what exactly was done.
fn explain(teller: &mut Teller<'_>, recorded: &Recorded) {
    let style = teller.screen.style;
    teller.screen.line("");
    if let Some(step) = recorded.view.step("decide") {
        teller
            .screen
            .say("Why (the rules of sops/connections.rhai that held, with what they saw):");
        for rule in rules::held(step) {
            teller.screen.block(&rule.text, 5);
            teller.screen.block(&style.paint(Tone::Faint, &rule.values), 5);
        }
    }
    let set = recorded.view.step("heal").and_then(|step| step.grounds.set.as_ref());
    for change in set.iter().flat_map(|set| &set.changes) {
        teller.screen.say(&format!("What was done to {}:", change.object));
        let text = style.paint(Tone::Strong, &change.operation.to_string());
        teller.screen.block(&text, 5);
        if let Operation::Sql { statement, .. } = &change.operation {
            let binds = statement.binds.iter().enumerate();
            for (place, bind) in binds {
                let bind = format!("${} = {}", place + 1, changes::value(bind));
                teller.screen.block(&style.paint(Tone::Faint, &bind), 5);
            }
        }
    }
}
