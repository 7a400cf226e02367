//! The demo from its beginning to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use sqlx::{Connection as _, Executor as _};

use super::error::DemoError;
use super::figures::{Moment, Report, promises};
use super::load::Load;
use super::patient::{Patient, open};
use super::project::Project;
use super::record::{Record, Recorded};
use super::screen::Screen;
use super::second_act::Decider;
use super::teller::{Teller, is_told};
use super::worker::Workers;
use super::{closing, first_act, second_act};
use crate::journal::Entry;
use crate::kernel::{Clock, IdSource};
use crate::postgres::{
    Cluster, ClusterOptions, LocalPostgres, PgEndpoint, Progress, ServerOptions,
};
use crate::report::style::{Tone, length};
use crate::report::timeline;

/// The name of the demo's cluster.
const CLUSTER: &str = "demo";
/// The database in it.
const DATABASE: &str = "shop";
/// The oldest PostgreSQL that the demo shows.
const OLDEST: u32 = 17;

/// What the demo needs to know.
pub struct DemoOptions {
    /// The user's state directory; the demo makes a project of its own below it.
    pub state: PathBuf,
    /// Where servers come from.
    pub server: ServerOptions,
    /// This program.
    pub program: PathBuf,
    /// Variables that are meant for the user's project, and not for the demo's.
    pub unset: Vec<String>,
    /// Whether the person at the terminal can be asked.
    pub can_ask: bool,
    /// Where the command line of the demo is given.
    pub current_dir: PathBuf,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Identifiers and random draws.
    pub ids: Arc<dyn IdSource>,
}

/// Plays the demo. However it ends, nothing of it runs any more then. `progress` is told how getting
/// and starting the server goes, and dropped then.
pub async fn play(
    options: &DemoOptions,
    progress: Box<dyn Progress>,
    screen: &mut Screen,
) -> Result<Report, DemoError> {
    let mut server = options.server.clone();
    server.oldest = server.oldest.max(OLDEST);
    let local = LocalPostgres::new(server, Arc::clone(&options.clock), Arc::clone(&options.ids));
    let project = Project::below(&options.state)?;
    local.discard(&project.state(), CLUSTER).await?;
    let told = tokio::select! {
        told = perform(options, (&local, progress), &project, screen) => told,
        _ = tokio::signal::ctrl_c() => Err(DemoError::Interrupted),
    };
    // The server stops when its story is dropped; here it is waited for, and its data removed.
    let cleared = local.discard(&project.state(), CLUSTER).await;
    let report = told?;
    cleared?;
    closing::tell(screen, &report);
    Ok(report)
}

async fn perform(
    options: &DemoOptions,
    server: (&LocalPostgres, Box<dyn Progress>),
    project: &Project,
    screen: &mut Screen,
) -> Result<Report, DemoError> {
    let began = options.clock.now();
    screen.line(&screen.style.paint(
        Tone::Strong,
        "lakeops demo: a real PostgreSQL, really sick, healed by the shipped workflows",
    ));
    let cluster = start(server, project, screen).await?;
    let ready = options.clock.now();
    let database = create_database(&cluster).await?;
    let patient = Patient::prepare(database).await?;
    project.connect(&patient.operator())?;
    screen.say(&format!(
        "PostgreSQL {} started in {}; the database `{DATABASE}` was made sick in {}.",
        cluster.record().version,
        length(ready.since(began)),
        length(options.clock.now().since(ready)),
    ));
    screen.faint(
        "It listens on a private socket and on loopback, and stops together with this process.",
    );
    let record = Record::open(&project.state(), Arc::clone(&options.clock))?;
    let load = Load::start(&patient, Arc::clone(&options.clock), Arc::clone(&options.ids)).await?;
    let workers = Workers {
        program: options.program.clone(),
        project: project.clone(),
        unset: options.unset.clone(),
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
    let decider = if options.can_ask { Decider::Person } else { Decider::Demo };
    let bloat = second_act::tell(&mut teller, decider, project.root()).await?;
    let mut moments = Vec::new();
    for workflow in [first_act::WORKFLOW, second_act::WORKFLOW] {
        moments.extend(timeline_of(&record.run(workflow).await?));
    }
    let audit = record.verify().await?;
    drop(load);
    let server = format!("PostgreSQL {}", cluster.record().version);
    cluster.stop().await?;
    let promises = promises(&connections, &bloat, &audit);
    let config = project.config();
    let config = config.strip_prefix(&options.current_dir).unwrap_or(&config);
    let look_further = [
        "runs",
        &format!("show {}", bloat.run_id),
        &format!("explain {} decide", connections.run_id),
        "audit verify",
    ]
    .map(|command| format!("lakeops --config {} {command}", config.display()));
    Ok(Report {
        ok: promises.iter().all(|promise| promise.held),
        server,
        connections,
        bloat,
        timeline: moments,
        audit,
        promises,
        seconds: options.clock.now().since(began).as_secs_f64(),
        look_further: look_further.to_vec(),
    })
}

async fn start(
    (local, progress): (&LocalPostgres, Box<dyn Progress>),
    project: &Project,
    screen: &mut Screen,
) -> Result<Cluster, DemoError> {
    project.renew()?;
    let installation = local.ensure(&*progress).await?;
    if !installation.has_library("pgstattuple") {
        return Err(DemoError::NoPgstattuple { bin_dir: installation.bin_dir });
    }
    screen.act(0, "A patient");
    let cluster = ClusterOptions::new(CLUSTER, project.state())
        .throwaway()
        .with_setting("shared_buffers", "64MB")
        .with_setting("max_connections", "60");
    Ok(local.start_guarded(&installation, &cluster, &*progress).await?)
}

async fn create_database(cluster: &Cluster) -> Result<PgEndpoint, DemoError> {
    let failed = |source| DemoError::Database { what: "create database", source };
    let mut admin = open(&cluster.endpoint()).await?;
    admin.execute("create database shop").await.map_err(failed)?;
    drop(admin.close().await);
    Ok(cluster.endpoint().with_database(DATABASE))
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
