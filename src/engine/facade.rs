//! Starting runs, working on them, and deciding about them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::executor::{ExecuteError, Executor};
use super::graph::BadEdge;
use super::groundwork::{self, Groundwork, Known, KnownPlans};
use super::ownership::Alone;
use super::parts::{Guard, Observer, OwnedElsewhere, Parts};
use super::precondition;
use super::rehearsal::{Stage, missing};
use super::state::{ChangeState, IllegalTransition, RunState};
use crate::journal::event::{Decision, DoubtVerdict, Event, Outcome, Principal};
use crate::journal::occasion::Cause;
use crate::journal::rehearsal::{EVIDENCE_KINDS, newest};
use crate::journal::store::{
    Append, Durability, Entry, EntryFilter, Expect, Journal, JournalError, Stream, is_sealed,
};
use crate::kernel::{Digest, Direction, Failure, Redactor, RunId, Severity};
use crate::plan::Plan;
use crate::plan::document::Precondition;
use crate::sop::Sandbox;

/// So many entries of a run are read at once.
const PAGE: u32 = 4_096;

/// How a run is started.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Makes starting idempotent: a second start with the same key gives the first one's run.
    pub key: Option<String>,
    /// Who starts it.
    pub by: Principal,
    /// Whether changes up to medium risk are approved as the caller.
    pub yes: bool,
    /// The run that this one was forked from.
    pub forked_from: Option<RunId>,
}

/// What a command on a run cannot do, and why.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The journal refuses or cannot.
    #[error("the journal could not be written or read")]
    Journal(#[from] JournalError),
    /// The run could not be worked on any further.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// Another process works on the run.
    #[error("run {run} cannot be worked on here")]
    Owned {
        /// The run.
        run: RunId,
        /// By whom it is held.
        #[source]
        source: OwnedElsewhere,
    },
    /// The journal holds no plan for the run.
    #[error("the journal holds no plan {plan} for run {run}")]
    NoPlan {
        /// The run.
        run: RunId,
        /// The plan.
        plan: Digest,
    },
    /// The run was over long ago, and sealed.
    #[error("run {run} is over and was sealed: of most of its events only the links are left")]
    Sealed {
        /// The run.
        run: RunId,
    },
    /// The plan's edges are broken.
    #[error("the plan cannot be carried out")]
    BadPlan(#[from] BadEdge),
    /// The journal says what cannot be.
    #[error("the journal of run {run} does not add up")]
    Illegal {
        /// The run.
        run: RunId,
        /// What.
        #[source]
        source: IllegalTransition,
    },
    /// Something that the plan relies on moved.
    #[error("the plan is stale: {moved}")]
    Stale {
        /// What moved.
        moved: String,
    },
    /// The connection's databases cannot be branched.
    #[error("connection `{connection}` cannot make branches, and a rehearsal needs one")]
    NoRehearsal {
        /// The connection.
        connection: String,
    },
    /// What is asked for is not possible in the run's present state.
    #[error("run {run}: {why}")]
    Refused {
        /// The run.
        run: RunId,
        /// Why.
        why: String,
        /// What to do instead.
        help: Option<String>,
    },
}

/// Starts runs, works on them, and records decisions about them.
#[derive(Clone)]
pub struct Engine {
    parts: Parts,
    sandbox: Sandbox,
    redactor: Redactor,
    leaves: bool,
    plans: KnownPlans,
}

/// A run as the journal has it.
#[derive(Debug)]
pub struct Loaded {
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Its state.
    pub state: RunState,
    /// What follows from its plan.
    groundwork: Arc<Groundwork>,
}

impl Engine {
    /// An engine of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            sandbox: Sandbox::new(),
            redactor: Redactor::default(),
            leaves: false,
            plans: KnownPlans::default(),
        }
    }

    /// An engine of these parts that masks what another one masks. Their journal may keep other plans.
    pub(super) fn of(parts: Parts, other: &Self) -> Self {
        Self { parts, plans: KnownPlans::default(), ..other.clone() }
    }

    /// What it masks.
    pub(super) const fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The same engine, which masks secrets before anything enters the state of a run.
    #[must_use]
    pub fn masking(self, redactor: Redactor) -> Self {
        Self { redactor, ..self }
    }

    /// The same engine, for who works on many runs. It parks a run that only waits for a time (a timer, another
    /// look, another try) some seconds or further away: it is taken up again then. And it leaves what runs owe the
    /// history to [`Engine::append_history`].
    #[must_use]
    pub fn for_many(self) -> Self {
        Self { leaves: true, ..self }
    }

    /// What it is made of.
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Records that a run of a plan exists. The run begins when it is executed.
    pub async fn start(&self, plan: &Plan, options: StartOptions) -> Result<RunId, EngineError> {
        match self.record_start(plan, (self.parts.ids.run_id(), options), None, Vec::new()).await {
            Err(EngineError::Journal(JournalError::DuplicateKey { run, .. })) => Ok(run),
            started => started.map(|(run, _)| run),
        }
    }

    /// Records that a run exists because of a slot or an event, in one commit with what `also` says of
    /// that. The key of the run is that of the cause: a second one is [`JournalError::DuplicateKey`].
    pub async fn start_because(
        &self,
        plan: &Plan,
        (by, cause): (Principal, Cause),
        also: impl FnOnce(&RunId) -> Append,
    ) -> Result<(RunId, Vec<Entry>), EngineError> {
        let options = StartOptions { key: Some(cause.key()), by, yes: false, forked_from: None };
        let run = self.parts.ids.run_id();
        let also = vec![also(&run)];
        let name = options.key.clone().unwrap_or_default();
        self.parts.kill.reach(&format!("{name}/before commit"));
        let started = self.record_start(plan, (run, options), Some(Box::new(cause)), also).await;
        self.parts.kill.reach(&format!("{name}/after commit"));
        started
    }

    async fn record_start(
        &self,
        plan: &Plan,
        (run, options): (RunId, StartOptions),
        cause: Option<Box<Cause>>,
        also: Vec<Append>,
    ) -> Result<(RunId, Vec<Entry>), EngineError> {
        let known = self.keep(plan).await?;
        let created = Event::RunCreated {
            plan: plan.id.clone(),
            workflow: plan.body.workflow.clone(),
            target: plan.body.target.clone(),
            key: options.key,
            by: options.by,
            yes: options.yes,
            forked_from: options.forked_from,
            cause,
        };
        let created = Append {
            stream: Stream::Run(run.clone()),
            expect: Expect::Last(0),
            events: vec![created],
        };
        let batch = also.into_iter().chain([created]).collect();
        let entries = self.parts.journal.append(batch, Durability::Synced).await?;
        drop(known);
        Ok((run, entries))
    }

    /// Keeps a plan that can be carried out, unless it is known to be kept. It stays while it is held.
    pub(super) async fn keep(&self, plan: &Plan) -> Result<Arc<Known>, EngineError> {
        let known = self.plans.hold(&plan.id);
        let keep = || async {
            groundwork::graph(&plan.body, &self.parts.catalog)?;
            Ok::<(), EngineError>(self.parts.journal.put_plan(plan).await?)
        };
        known.kept.get_or_try_init(keep).await?;
        Ok(known)
    }

    /// The same as [`Engine::execute`], in a task of its own: the workers of the runtime hand each other what they
    /// do, and whoever only waits, such as the main thread, is not woken for every event. It goes on when this is
    /// no longer awaited.
    pub async fn execute_apart(
        &self,
        run: &RunId,
        interrupt: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome, EngineError> {
        let (engine, run) = (self.clone(), run.clone());
        let work = async move { Box::pin(engine.execute(&run, interrupt, observer)).await };
        match tokio::spawn(work).await {
            Ok(outcome) => outcome,
            Err(gone) => match gone.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime comes to its end, and whoever waits with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Works on a run until it is over, or waits for somebody, or is interrupted.
    #[tracing::instrument(name = "run", skip_all, fields(run = %run))]
    pub async fn execute(
        &self,
        run: &RunId,
        interrupt: CancellationToken,
        observer: Arc<dyn Observer>,
    ) -> Result<Outcome, EngineError> {
        let acquired = self.parts.ownership.acquire(run);
        let guard: Guard =
            acquired.map_err(|source| EngineError::Owned { run: run.clone(), source })?;
        let (groundwork, mut state) = self.fold(run).await?;
        if let Some((outcome, _)) = state.finished {
            drop(guard);
            self.append_own_history(&groundwork.plan).await;
            return Ok(outcome);
        }
        let claim = Append {
            stream: Stream::Run(run.clone()),
            expect: Expect::Last(state.last_seq),
            events: vec![Event::RunClaimed {
                by: self.parts.principal.clone(),
                pid: self.parts.pid,
            }],
        };
        // A decision that came in since the run was read is read with it at the next try.
        let entries = match self.parts.journal.append(vec![claim], Durability::Synced).await {
            Err(JournalError::Conflict { .. }) => {
                drop(guard);
                return Box::pin(self.execute(run, interrupt, observer)).await;
            }
            other => other?,
        };
        for entry in &entries {
            let applied = state.apply(&entry.event, entry.at, entry.seq);
            applied.map_err(|source| EngineError::Illegal { run: run.clone(), source })?;
            observer.event(run, entry.at, &entry.event);
        }
        if let Some(rehearsal) = state.rehearsal.clone() {
            let plan = (run, &groundwork.plan);
            let outcome = self.conduct(plan, (&state, &rehearsal), interrupt, observer).await;
            drop(guard);
            return outcome;
        }
        let plan = Arc::clone(&groundwork.plan);
        let mut executor = self.executor(run, (groundwork, state), observer);
        if executor.state.preconditions.is_none() && !executor.plan.body.preconditions.is_empty() {
            self.check_preconditions(&mut executor).await?;
        }
        let outcome = executor.work(interrupt).await?;
        drop(guard);
        if outcome.is_final() {
            self.append_own_history(&plan).await;
        }
        Ok(outcome)
    }

    /// Appends to the history before the run is reported finished. Its rows and its end are durable, and
    /// its locks are given back: a history that cannot be reached keeps nothing from being healed.
    ///
    /// Who asked no database has measured nothing, and took less time and memory than appending would. What there is
    /// to say of it is appended with the next run's, or when the history is asked.
    async fn append_own_history(&self, plan: &Plan) {
        if !self.leaves && plan.body.connects() {
            self.append_history().await;
        }
    }

    /// Appends what runs that are over owe the history, and the audit up to now. What cannot be appended stays in
    /// the journal, and whoever is to be told is told.
    pub async fn append_history(&self) {
        let Some(history) = &self.parts.history else { return };
        if let Err(failure) = history.append_owed().await {
            tracing::warn!(%failure, "history rows wait in the journal");
            let title = "history rows wait in the journal";
            let body = format!("{failure}; `lakeops history flush` appends them");
            self.parts.notifier.notify(Severity::Warning, title, &body);
        }
    }

    fn executor(
        &self,
        run: &RunId,
        (groundwork, state): (Arc<Groundwork>, RunState),
        observer: Arc<dyn Observer>,
    ) -> Executor {
        let settings = self.parts.settings.settings(&groundwork.plan.body.target);
        let parts = (self.parts.clone(), Arc::new(settings));
        let mut executor = Executor::new(parts, (run.clone(), groundwork), state, observer);
        executor.redactor = self.redactor.clone();
        executor.leaves = self.leaves;
        executor
    }

    async fn check_preconditions(&self, executor: &mut Executor) -> Result<(), EngineError> {
        let found = precondition::take(&self.parts, &executor.plan).await;
        let found = match found {
            Ok(found) => found,
            Err(failure) => return self.end_at_once(executor, failure).await,
        };
        let moved = precondition::moved(&executor.plan.body.preconditions, &found);
        executor.record(vec![Event::PreconditionsTaken { found }], Durability::Buffered).await?;
        match moved {
            None => Ok(()),
            Some(moved) => {
                let text = format!("the plan is stale: {moved}");
                let failure = Failure::permanent("plan::stale", text)
                    .with_help("make the plan again with `lakeops plan --preview -o`");
                self.end_at_once(executor, failure).await
            }
        }
    }

    async fn end_at_once(
        &self,
        executor: &mut Executor,
        failure: Failure,
    ) -> Result<(), EngineError> {
        let outcome = Outcome::Failed;
        let failure = Some(failure);
        let end = Event::EndingBegan { outcome, compensate: false, scope: None, failure };
        Ok(executor.record(vec![end], Durability::Synced).await?)
    }

    /// Runs the reads and proposals of a plan against a journal of its own (`scratch`, in memory);
    /// nothing is carried out, and what needs a decision is taken as approved.
    pub async fn preview(
        &self,
        plan: &Plan,
        scratch: Arc<dyn Journal>,
        observer: Arc<dyn Observer>,
    ) -> Result<Loaded, EngineError> {
        let parts = Parts { journal: scratch, ownership: Arc::new(Alone), ..self.parts.clone() };
        let engine = Self::of(parts, self);
        engine.work_in_scratch(plan, None, (CancellationToken::new(), observer)).await
    }

    /// The same plan with the fingerprints of what a preview of it was about: it goes stale when one of
    /// them moves.
    pub async fn pin(&self, plan: &Plan, previewed: &RunState) -> Result<Plan, Failure> {
        let names = precondition::named(previewed);
        let found = precondition::fingerprints(&self.parts, plan, &names).await?;
        let mut body = plan.body.clone();
        body.preconditions = found
            .into_iter()
            .map(|(name, fingerprint)| Precondition { name, fingerprint })
            .collect();
        Plan::seal(body, plan.created_at)
            .map_err(|error| Failure::permanent("plan::unwritable", error.to_string()))
    }

    /// Works on a plan as if every decision had been taken, in a journal that is forgotten; changes are
    /// tried on the stage, when there is one.
    pub(super) async fn work_in_scratch(
        &self,
        plan: &Plan,
        stage: Option<&Arc<Stage>>,
        (interrupt, observer): (CancellationToken, Arc<dyn Observer>),
    ) -> Result<Loaded, EngineError> {
        let options = StartOptions {
            key: None,
            by: self.parts.principal.clone(),
            yes: false,
            forked_from: None,
        };
        let run = self.start(plan, options).await?;
        let loaded = self.load(&run).await?;
        let claimed = Event::RunClaimed { by: self.parts.principal.clone(), pid: self.parts.pid };
        self.append(&run, Expect::Last(loaded.state.last_seq), claimed).await?;
        let loaded = self.load(&run).await?;
        let mut executor = self.executor(&run, (loaded.groundwork, loaded.state), observer);
        executor.preview = true;
        executor.stage = stage.cloned();
        executor.work(interrupt).await?;
        self.load(&run).await
    }

    /// A run as the journal has it.
    pub async fn load(&self, run: &RunId) -> Result<Loaded, EngineError> {
        let (groundwork, entries) = self.stored(run).await?;
        let state = groundwork.unbegun().replay(&entries);
        let state = state.map_err(|source| EngineError::Illegal { run: run.clone(), source })?;
        Ok(Loaded { plan: Arc::clone(&groundwork.plan), entries, state, groundwork })
    }

    /// The entries of a run, and what follows from its plan.
    pub(super) async fn stored(
        &self,
        run: &RunId,
    ) -> Result<(Arc<Groundwork>, Vec<Entry>), EngineError> {
        let entries = self.parts.journal.read(&Stream::Run(run.clone()), 0).await?;
        Ok((self.groundwork(run, &entries).await?, entries))
    }

    /// What is known of a run, folded piece by piece: its entries are never there all at once.
    async fn fold(&self, run: &RunId) -> Result<(Arc<Groundwork>, RunState), EngineError> {
        let stream = Stream::Run(run.clone());
        let mut page = self.parts.journal.read_some(&stream, 0, PAGE).await?;
        let groundwork = self.groundwork(run, &page).await?;
        let mut state = groundwork.unbegun();
        loop {
            let folded = state.replay(&page);
            state = folded.map_err(|source| EngineError::Illegal { run: run.clone(), source })?;
            if u32::try_from(page.len()).is_ok_and(|read| read < PAGE) {
                return Ok((groundwork, state));
            }
            page = self.parts.journal.read_some(&stream, state.last_seq, PAGE).await?;
            if is_sealed(state.last_seq, &page) {
                return Err(EngineError::Sealed { run: run.clone() });
            }
        }
    }

    /// What follows from the plan of a run that begins with these entries.
    async fn groundwork(
        &self,
        run: &RunId,
        entries: &[Entry],
    ) -> Result<Arc<Groundwork>, EngineError> {
        let created = entries.iter().find_map(|entry| match &entry.event {
            Event::RunCreated { plan, .. } => Some(plan.clone()),
            _ => None,
        });
        let Some(plan_id) = created else {
            let prefix = run.to_string();
            return Err(JournalError::NoSuchRun { prefix, found: 0 }.into());
        };
        // The plan of one that is sealed may be gone.
        if is_sealed(0, entries) {
            return Err(EngineError::Sealed { run: run.clone() });
        }
        let known = self.plans.hold(&plan_id);
        if let Some(groundwork) = known.groundwork() {
            return Ok(groundwork);
        }
        let Some(plan) = self.parts.journal.plan(&plan_id).await? else {
            return Err(EngineError::NoPlan { run: run.clone(), plan: plan_id });
        };
        Ok(known.work_out(plan, (&self.parts.catalog, &self.sandbox))?)
    }

    async fn append(&self, run: &RunId, expect: Expect, event: Event) -> Result<(), JournalError> {
        let append = Append { stream: Stream::Run(run.clone()), expect, events: vec![event] };
        self.parts.journal.append(vec![append], Durability::Synced).await.map(drop)
    }

    /// Records a decision: `make` looks at the run and says which event to record. Checked and recorded
    /// without anything else of the run coming in between.
    async fn decide<T>(
        &self,
        run: &RunId,
        make: impl Fn(&Loaded) -> Result<(Event, T), EngineError>,
    ) -> Result<T, EngineError> {
        loop {
            let loaded = self.load(run).await?;
            let last = loaded.entries.last().map_or(0, |entry| entry.seq);
            let (event, answer) = make(&loaded)?;
            match self.append(run, Expect::Last(last), event).await {
                Ok(()) => return Ok(answer),
                Err(JournalError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Approves or rejects what a step waits for. `digest` is what the person saw; `None`: whatever
    /// waits now. Returns the step.
    pub async fn decide_approval(
        &self,
        (run, step): (&RunId, Option<&str>),
        digest: Option<&Digest>,
        decision: Decision,
        (by, reason): (&Principal, &str),
    ) -> Result<String, EngineError> {
        let refuse = |why: String, help: Option<&str>| EngineError::Refused {
            run: run.clone(),
            why,
            help: help.map(str::to_owned),
        };
        let filter = EntryFilter {
            kinds: EVIDENCE_KINDS.map(str::to_owned).into(),
            ..EntryFilter::default()
        };
        let evidence = newest(self.parts.journal.entries(filter).await?);
        self.decide(run, |loaded| {
            let now = self.parts.clock.now();
            let open = |key: Option<&str>| {
                let open = loaded.state.open_approvals();
                open.filter(|a| key.is_none_or(|key| a.step == key)).collect::<Vec<_>>()
            };
            let approval = match (open(step).as_slice(), step) {
                ([one], _) => (*one).clone(),
                ([], Some(step)) => {
                    let waits: Vec<_> = open(None).iter().map(|a| a.step.clone()).collect();
                    let help =
                        (!waits.is_empty()).then(|| format!("waiting: {}", waits.join(", ")));
                    return Err(refuse(format!("no approval of `{step}` waits"), help.as_deref()));
                }
                ([], None) => return Err(refuse("no approval waits".to_owned(), None)),
                (several, _) => {
                    let names: Vec<_> = several.iter().map(|a| a.step.as_str()).collect();
                    let help = format!("name the step: {}", names.join(", "));
                    return Err(refuse("several approvals wait".to_owned(), Some(&help)));
                }
            };
            if loaded.state.finished.is_some() {
                return Err(refuse("it is over".to_owned(), None));
            }
            if digest.is_some_and(|digest| *digest != approval.request.digest) {
                let why = "the changes are not those that you saw".to_owned();
                return Err(refuse(why, Some("look again: `lakeops approvals`")));
            }
            if now >= approval.request.expires_at && decision == Decision::Approved {
                let why = format!("the request expired at {}", approval.request.expires_at);
                return Err(refuse(why, Some("start the workflow again")));
            }
            let allow_self =
                self.parts.settings.settings(&loaded.plan.body.target).approvals.allow_self;
            let starter = loaded.state.started_by.as_ref().map(|starter| &starter.name);
            if decision == Decision::Approved && !allow_self && starter == Some(&by.name) {
                let why = format!("{} started it and may not approve it", by.name);
                return Err(refuse(
                    why,
                    Some("ask another person (`approvals.allow_self` is false)"),
                ));
            }
            if decision == Decision::Approved
                && let Some(why) = missing(&approval, &evidence, now)
            {
                let help = "rehearse with the same parameters, then approve: `lakeops run WORKFLOW --rehearse`";
                return Err(refuse(why, Some(help)));
            }
            let event = Event::ApprovalDecided {
                step: approval.step.clone(),
                digest: approval.request.digest.clone(),
                decision,
                by: by.clone(),
                reason: reason.to_owned(),
            };
            Ok((event, approval.step.clone()))
        })
        .await
    }

    /// Asks a run to end; with `compensate`, after undoing what it did.
    pub async fn cancel(
        &self,
        run: &RunId,
        compensate: bool,
        (by, reason): (&Principal, &str),
    ) -> Result<(), EngineError> {
        self.decide(run, |loaded| {
            if let Some((outcome, _)) = loaded.state.finished {
                let why = format!("it is over: {}", outcome.as_str());
                return Err(EngineError::Refused { run: run.clone(), why, help: None });
            }
            let (by, reason) = (by.clone(), reason.to_owned());
            Ok((Event::CancelRequested { by, compensate, reason }, ()))
        })
        .await
    }

    /// Says what became of a change in doubt: the only one, or that of a step (and index).
    pub async fn settle(
        &self,
        (run, step, index): (&RunId, Option<&str>, Option<u32>),
        verdict: DoubtVerdict,
        (by, reason): (&Principal, &str),
    ) -> Result<(String, u32), EngineError> {
        let refuse = |why: String, help: Option<String>| EngineError::Refused {
            run: run.clone(),
            why,
            help,
        };
        self.decide(run, |loaded| {
            let doubts = doubts(&loaded.state);
            let fits = doubts.iter().filter(|(key, place, _)| {
                step.is_none_or(|step| step == key) && index.is_none_or(|index| index == *place)
            });
            let (step, index, direction) = match fits.collect::<Vec<_>>().as_slice() {
                [one] => (*one).clone(),
                [] => return Err(refuse("no such change is in doubt".to_owned(), None)),
                several => {
                    let names: Vec<_> =
                        several.iter().map(|(key, index, _)| format!("{key} {index}")).collect();
                    let help = format!("name the step and the change: {}", names.join(", "));
                    return Err(refuse("several changes are in doubt".to_owned(), Some(help)));
                }
            };
            let event = Event::DoubtSettled {
                step: step.clone(),
                index,
                direction,
                verdict,
                by: by.clone(),
                reason: reason.to_owned(),
            };
            Ok((event, (step, index)))
        })
        .await
    }

    /// Says that a person took care of what a run was stuck at.
    pub async fn unstick(
        &self,
        run: &RunId,
        (by, reason): (&Principal, &str),
    ) -> Result<(), EngineError> {
        self.decide(run, |loaded| {
            if loaded.state.stuck.is_none() {
                let why = "it is not stuck".to_owned();
                return Err(EngineError::Refused { run: run.clone(), why, help: None });
            }
            Ok((Event::Unstuck { by: by.clone(), reason: reason.to_owned() }, ()))
        })
        .await
    }
}

/// The changes of a run that nobody can tell the end of.
pub fn doubts(state: &RunState) -> Vec<(String, u32, Direction)> {
    let mut found = Vec::new();
    for node in &state.nodes {
        let done = node.work.as_deref().map(|work| (work, Direction::Do));
        let undone = node.undo.as_ref().map(|undo| (&undo.work, Direction::Undo));
        for (work, direction) in done.into_iter().chain(undone) {
            for (index, change) in (0_u32..).zip(&work.changes) {
                if matches!(change, ChangeState::InDoubt { .. }) {
                    found.push((node.key.clone(), index, direction));
                }
            }
        }
    }
    found
}
