//! The demo from its beginning to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::cloud::{self, Cloud};
use super::error::DemoError;
use super::figures::{Moment, Report, promises};
use super::load::Load;
use super::patient::Patient;
use super::project::Project;
use super::record::{Record, Recorded};
use super::screen::Screen;
use super::teller::{Teller, is_told};
use super::third_act::Decider;
use super::worker::Workers;
use super::{closing, first_act, second_act, third_act};
use crate::cli::follow::told_to_end;
use crate::config::Environment;
use crate::journal::Entry;
use crate::kernel::{Clock, IdSource, Redactor, Secret};
use crate::postgres::{Installation, LocalPostgres, Progress, ServerOptions};
use crate::report::style::{Tone, length};
use crate::report::timeline;

/// The PostgreSQL that the emulator runs.
const VERSION: u32 = 17;

/// What the demo needs to know.
pub struct DemoOptions {
    /// The user's state directory; the demo makes a project of its own below it.
    pub state: PathBuf,
    /// Where servers come from.
    pub server: ServerOptions,
    /// This program.
    pub program: PathBuf,
    /// The surroundings; variables that are meant for the user's project are kept from the demo's.
    pub environment: Arc<dyn Environment>,
    /// What keeps secrets out of every output.
    pub redactor: Redactor,
    /// Whether the person at the terminal can be asked.
    pub can_ask: bool,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and random draws.
    pub ids: Arc<dyn IdSource>,
}

/// Plays the demo. However it ends, nothing of it runs any more then, and no database is left. `progress` is
/// told how getting PostgreSQL goes, and dropped then.
pub async fn play(
    options: &DemoOptions,
    progress: Box<dyn Progress>,
    screen: &mut Screen,
) -> Result<Report, DemoError> {
    let mut server = options.server.clone();
    server.oldest = server.oldest.max(VERSION);
    let local = LocalPostgres::new(server, Arc::clone(&options.clock), Arc::clone(&options.ids));
    let project = Project::below(&options.state)?;
    let installation = tokio::select! {
        found = find(&local, &*progress) => found?,
        () = told_to_end() => return Err(DemoError::Interrupted),
    };
    drop(progress);
    Box::pin(Cloud::clear(options, &local, project.state())).await?;
    project.renew()?;
    let cloud = Box::pin(Cloud::start(options, &local, project.state())).await?;
    let told = tokio::select! {
        told = perform(options, (&cloud, &installation), &project, screen) => told,
        () = told_to_end() => Err(DemoError::Interrupted),
    };
    let cleared = Box::pin(cloud.discard()).await;
    let report = told?;
    cleared?;
    closing::tell(screen, &report);
    Ok(report)
}

/// A PostgreSQL that the demo can be played on.
async fn find(local: &LocalPostgres, progress: &dyn Progress) -> Result<Installation, DemoError> {
    let installation = local.ensure(progress).await?;
    let found = installation.version;
    let bin_dir = installation.bin_dir.clone();
    if found.major != VERSION {
        return Err(DemoError::Version { wanted: VERSION, found, bin_dir });
    }
    if !installation.has_library("pgstattuple") {
        return Err(DemoError::NoPgstattuple { bin_dir });
    }
    Ok(installation)
}

async fn perform(
    options: &DemoOptions,
    (cloud, installation): (&Cloud, &Installation),
    project: &Project,
    screen: &mut Screen,
) -> Result<Report, DemoError> {
    let began = options.clock.now();
    screen.line(&screen.style.paint(
        Tone::Strong,
        "lakeops demo: a Lakebase on this machine, a real database, really sick, healed by the shipped workflows",
    ));
    screen.act(0, "A patient");
    cloud.make_project().await?;
    let ready = options.clock.now();
    let patient = prepare(options, cloud).await?;
    screen.say(&format!(
        "The project {} with PostgreSQL {} was made in {}, its database made sick in {}.",
        cloud::TARGET,
        installation.version,
        length(ready.since(began)),
        length(options.clock.now().since(ready)),
    ));
    screen.faint(&format!(
        "The emulator answers at {}, listens on loopback only, and ends together with this process.",
        cloud.host()
    ));
    let record = Record::open(&project.state(), Arc::clone(&options.clock))?;
    let load = Load::start(&patient, Arc::clone(&options.clock), Arc::clone(&options.ids)).await?;
    let workers = Workers {
        program: options.program.clone(),
        project: project.clone(),
        unset: options.environment.vars("LAKEOPS_").into_keys().collect(),
    };
    let mut teller = Teller {
        screen,
        patient: &patient,
        load: &load,
        record: &record,
        workers: &workers,
        clock: Arc::clone(&options.clock),
        told: BTreeMap::new(),
    };
    let connections = first_act::tell(&mut teller).await?;
    let bloat = second_act::tell(&mut teller, project.root()).await?;
    let decider = if options.can_ask { Decider::Person } else { Decider::Demo };
    let rewrite = third_act::tell(&mut teller, cloud, decider).await?;
    let runs = [&connections.run_id, &bloat.run_id, &rewrite.rehearsal.run_id, &rewrite.run_id];
    let mut moments = Vec::new();
    for run in runs {
        moments.extend(timeline_of(&record.run_of(run).await?));
    }
    // The rehearsal lies in the middle of the run that it is for.
    moments.sort_by_key(|moment| moment.at);
    let audit = record.verify().await?;
    let promises = promises(&connections, &bloat, &rewrite, &audit);
    let config = project.config();
    let config = config.strip_prefix(options.environment.current_dir()).unwrap_or(&config);
    let look_further = [
        "runs",
        &format!("show {}", bloat.run_id),
        &format!("show {}", rewrite.rehearsal.run_id),
        &format!("explain {} decide", connections.run_id),
        "audit verify",
    ]
    .map(|command| format!("lakeops --config {} {command}", config.display()));
    Ok(Report {
        ok: promises.iter().all(|promise| promise.held),
        server: format!("PostgreSQL {}", installation.version),
        connections,
        bloat,
        rewrite,
        timeline: moments,
        audit,
        promises,
        seconds: options.clock.now().since(began).as_secs_f64(),
        look_further: look_further.to_vec(),
    })
}

/// Fills the database of the project.
async fn prepare(options: &DemoOptions, cloud: &Cloud) -> Result<Patient, DemoError> {
    let password = Secret::new(format!("{}{}", options.ids.run_id(), options.ids.run_id()));
    // It is long enough to be masked.
    let _known = options.redactor.register("shop password", password.expose());
    Patient::prepare(cloud.lakebase(), cloud::target(), &password).await
}

/// What the journal says of a run, as far as it is part of the story.
fn timeline_of(recorded: &Recorded) -> Vec<Moment> {
    let told = recorded.entries.iter().filter(|entry| is_told(&entry.event));
    let moment = |entry: &Entry| {
        let (step, what, _) = timeline::describe(&entry.event);
        Moment {
            at: entry.at,
            workflow: recorded.view.workflow.clone(),
            step: step.map(str::to_owned),
            what,
        }
    };
    told.map(moment).collect()
}
