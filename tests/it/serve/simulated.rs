//! A server by a clock that jumps: what is the same whatever it works on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lakeops::config::Settings;
use lakeops::engine::Engine;
use lakeops::engine::parts::Parts;
use lakeops::kernel::{Clock as _, Failure, Span, Target, Timestamp};
use lakeops::plan::{Given, Plan, PlanInputs};
use lakeops::server::metrics::Metrics;
use lakeops::server::{Most, Occasions, Server, ServerError, Wanted, Workflows};
use lakeops::tools::Catalog;
use lakeops::workflow::elements::{CatchUp, Overlap, ScheduleSpec};
use lakeops::workflow::{Library, Resolver, Workflow};
use tokio_util::sync::CancellationToken;

use super::clock::{Follows, Jumping};

/// A schedule in UTC that catches nothing up, whose runs do not overlap.
pub(super) fn schedule(id: &str, cron: &str) -> ScheduleSpec {
    ScheduleSpec {
        id: id.to_owned(),
        cron: cron.to_owned(),
        time_zone: "UTC".to_owned(),
        overlap: Overlap::Skip,
        catch_up: CatchUp::None,
        catch_up_window: Span::from_secs(3600),
        jitter: Span::from_secs(0),
    }
}

/// The workflows of a library on one connection, with their schedules, which are told once.
pub(super) struct Shop {
    library: Library,
    clock: Arc<Jumping>,
    occasions: Mutex<Option<Occasions>>,
}

impl Shop {
    pub(super) fn new(
        library: Library,
        clock: Arc<Jumping>,
        schedules: Vec<(String, ScheduleSpec)>,
    ) -> Self {
        let occasions = Occasions { schedules, triggers: Vec::new() };
        Self { library, clock, occasions: Mutex::new(Some(occasions)) }
    }

    pub(super) fn clock(&self) -> &Jumping {
        &self.clock
    }

    pub(super) fn planned(&self, workflow: &str) -> Result<Plan, Failure> {
        planned(&self.library, workflow, ("shop", Target::default()), self.clock.now())
    }
}

impl Workflows for Shop {
    fn occasions(&self) -> Option<Occasions> {
        self.occasions.lock().unwrap().take()
    }

    fn plan(&self, wanted: &Wanted) -> Result<Plan, Failure> {
        self.planned(&wanted.workflow)
    }
}

/// The plan of a workflow of a library, without parameters.
pub(super) fn planned(
    library: &Library,
    workflow: &str,
    place: (&str, Target),
    now: Timestamp,
) -> Result<Plan, Failure> {
    let catalog = Catalog::builtin();
    let resolution = Resolver::new(&catalog, library).resolve(workflow);
    let found = resolution.get(workflow);
    let workflow = found.unwrap_or_else(|| panic!("{:?}", resolution.diagnostics));
    plan_of(workflow, BTreeMap::new(), place, now)
}

/// The plan of a workflow with these parameters.
pub(super) fn plan_of(
    workflow: &Workflow,
    params: BTreeMap<String, Given>,
    (connection, target): (&str, Target),
    now: Timestamp,
) -> Result<Plan, Failure> {
    let inputs = PlanInputs {
        params,
        connection: connection.to_owned(),
        target,
        settings: &Settings::default(),
        policy: None,
        replaces: None,
        wake: false,
        now,
    };
    lakeops::plan::plan(workflow, &inputs)
        .map_err(|found| Failure::permanent("test::plan", format!("{found:?}")))
}

/// Serves until it is told to stop, so many runs at once; the clock goes on when nothing is worked on.
pub(super) async fn serve(
    parts: Parts,
    workflows: &dyn Workflows,
    clock: &impl Follows,
    (stop, most): (CancellationToken, usize),
) -> Result<(), ServerError> {
    serve_within(parts, workflows, clock, (stop, Most { at_once: most, queued: 10_000 })).await
}

/// The same, and no more than so much waits.
pub(super) async fn serve_within(
    parts: Parts,
    workflows: &dyn Workflows,
    clock: &impl Follows,
    (stop, most): (CancellationToken, Most),
) -> Result<(), ServerError> {
    let metrics = Arc::new(Metrics::new(clock.now()));
    clock.follow(Arc::clone(&metrics), stop.clone());
    let (_ask, asks) = tokio::sync::mpsc::channel(1);
    let server = Server::new(Engine::new(parts), workflows, (metrics, asks), most);
    server.serve(stop).await
}
