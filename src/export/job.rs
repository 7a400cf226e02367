//! Workflows with a schedule as jobs: each asks a `lakeops serve` for a run, and follows it. PURE.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Gap;
use crate::kernel::Span;
use crate::plan::document::ApprovalMode;
use crate::workflow::Workflow;
use crate::workflow::cron::CronSchedule;
use crate::workflow::elements::{CatchUp, Overlap, ScheduleSpec, Setting};
use crate::workflow::quartz::quartz;
use crate::workflow::resolved::Action;

/// The file with the script of the tasks, beside the bundle.
pub(super) const SCRIPT: &str = "lakeops_task.py";
/// How long a task waits for a person before it says so and ends.
const PATIENCE: Span = Span::from_secs(3_600);
/// How long a run may work when its file does not say: a job without a bound could block its slots for good.
const MOST_WORK: Span = Span::from_secs(4 * 3_600);

/// A usual job, and what does its work here.
pub(super) struct UsualJob {
    /// Its name.
    pub(super) name: &'static str,
    /// Its cron.
    pub(super) cron: &'static str,
    /// The workflow of ours.
    pub(super) work: Work,
}

/// What does the work of a usual job.
pub(super) enum Work {
    /// The workflow of this name.
    Workflow(&'static str),
    /// The scheduled workflow that uses this tool.
    Tool(&'static str),
}

/// The seven jobs that a Lakebase is usually looked after by.
pub(super) const USUAL_JOBS: [UsualJob; 7] = [
    UsualJob {
        name: "metric_collector",
        cron: "*/5 * * * *",
        work: Work::Workflow("collect_metrics"),
    },
    UsualJob {
        name: "index_analyzer",
        cron: "0 * * * *",
        work: Work::Workflow("run_full_index_analysis"),
    },
    UsualJob { name: "vacuum_scheduler", cron: "0 2 * * *", work: Work::Workflow("vacuum_window") },
    UsualJob {
        name: "sync_validator",
        cron: "*/15 * * * *",
        work: Work::Workflow("sync_validation"),
    },
    UsualJob {
        name: "branch_manager",
        cron: "0 */6 * * *",
        work: Work::Workflow("branch_housekeeping"),
    },
    UsualJob {
        name: "cold_archiver",
        cron: "0 3 * * 0",
        work: Work::Workflow("archive_cold_data"),
    },
    UsualJob {
        name: "cost_tracker",
        cron: "0 6 * * *",
        work: Work::Tool("track_cost_attribution"),
    },
];

/// Settings of a job, as the Jobs API 2.2 takes them.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// At most 25.
    pub tags: BTreeMap<&'static str, String>,
    /// Always 1.
    pub max_concurrent_runs: u32,
    /// Whether a slot waits while the run before is at work.
    pub queue: Queue,
    /// After how long the job is ended.
    pub timeout_seconds: u64,
    /// When it runs.
    pub schedule: Schedule,
    /// What can be given to a run of it.
    pub parameters: Vec<Parameter>,
    /// Where the tasks run.
    pub environments: Vec<Environment>,
    /// What it does.
    pub tasks: Vec<Task>,
    /// Who is told when it fails.
    pub webhook_notifications: Notifications,
}

/// `queue`.
#[derive(Clone, Debug, Serialize)]
pub struct Queue {
    /// Whether runs wait.
    pub enabled: bool,
}

/// `schedule`.
#[derive(Clone, Debug, Serialize)]
pub struct Schedule {
    /// Six fields.
    pub quartz_cron_expression: String,
    /// An IANA zone.
    pub timezone_id: String,
    /// `UNPAUSED`; a target in development mode pauses it.
    pub pause_status: &'static str,
}

/// A parameter of a job.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its default.
    pub default: String,
}

/// An environment of serverless tasks.
#[derive(Clone, Debug, Serialize)]
pub struct Environment {
    /// Its key.
    pub environment_key: &'static str,
    /// What it has.
    pub spec: EnvironmentSpec,
}

/// What an environment has.
#[derive(Clone, Debug, Serialize)]
pub struct EnvironmentSpec {
    /// Its version.
    pub environment_version: &'static str,
}

/// A task.
#[derive(Clone, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the API")]
pub struct Task {
    /// Its key.
    pub task_key: &'static str,
    /// The tasks before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// When it runs.
    pub run_if: &'static str,
    /// How often it is tried again.
    pub max_retries: u32,
    /// How long is waited before that.
    pub min_retry_interval_millis: u64,
    /// Whether it is tried again when it took too long.
    pub retry_on_timeout: bool,
    /// How long it may take.
    pub timeout_seconds: u64,
    /// Where it runs.
    pub environment_key: &'static str,
    /// What it runs.
    pub spark_python_task: Script,
}

/// A task that a task waits for.
#[derive(Clone, Debug, Serialize)]
pub struct Dependency {
    /// Its key.
    pub task_key: &'static str,
}

/// A script with its arguments.
#[derive(Clone, Debug, Serialize)]
pub struct Script {
    /// The file.
    pub python_file: String,
    /// The arguments.
    pub parameters: Vec<String>,
}

/// Who is told.
#[derive(Clone, Debug, Serialize)]
pub struct Notifications {
    /// When it fails.
    pub on_failure: Vec<Destination>,
}

/// A notification destination of the workspace.
#[derive(Clone, Debug, Serialize)]
pub struct Destination {
    /// Its id.
    pub id: &'static str,
}

/// A job with its key in the bundle, and where it comes from.
pub(super) struct Exported {
    pub(super) key: String,
    pub(super) workflow: String,
    pub(super) cron: String,
    pub(super) job: Job,
}

/// The jobs of a workflow, one for each Quartz expression of each of its schedules.
pub(super) fn of(
    workflow: &Workflow,
    usual: Option<&UsualJob>,
    gaps: &mut Vec<Gap>,
) -> Vec<Exported> {
    let name = &workflow.spec.name.value;
    let base = usual.map_or(name.as_str(), |usual| usual.name);
    let mut jobs = Vec::new();
    for schedule in &workflow.spec.schedule {
        losses(name, schedule, gaps);
        let expressions = match quartz(&schedule.cron) {
            Ok(expressions) => expressions,
            Err(error) => {
                let what = format!("the schedule `{}`", schedule.cron);
                gaps.push(Gap::of(name, what, error.to_string(), "leave it to `lakeops serve`"));
                continue;
            }
        };
        if expressions.len() > 1 {
            gaps.push(Gap::of(
                name,
                format!("`{}` fires on either of two days", schedule.cron),
                "Quartz has one day field at a time: it is two jobs".to_owned(),
                "a slot that both have is one run: they share its key",
            ));
        }
        for expression in expressions {
            let number = jobs.len() + 1;
            let key = if number == 1 { base.to_owned() } else { format!("{base}_{number}") };
            let job = job(workflow, schedule, &key, expression);
            let (workflow, cron) = (name.clone(), schedule.cron.clone());
            jobs.push(Exported { key, workflow, cron, job });
        }
    }
    if let (Some(usual), Some(first)) = (usual, workflow.spec.schedule.first())
        && first.cron != usual.cron
    {
        gaps.push(Gap::of(
            name,
            format!("the usual job `{}` runs at `{}`", usual.name, usual.cron),
            format!("the workflow says `{}`, and that is what is exported", first.cron),
            "change the workflow's `schedule`",
        ));
    }
    if jobs.iter().any(|made| made.job.schedule.quartz_cron_expression.starts_with("0 * ")) {
        gaps.push(Gap::of(
            name,
            "a job every minute".to_owned(),
            "each starts a compute of its own, which costs more than what it asks for".to_owned(),
            "leave it to `lakeops serve`, and take the job out of the bundle",
        ));
    }
    if !jobs.is_empty() && asks(workflow) {
        gaps.push(Gap::of(
            name,
            "approvals".to_owned(),
            "Databricks has no approval task".to_owned(),
            "the run waits on the server: `lakeops approvals`; the task waits an hour and then says so",
        ));
    }
    jobs
}

/// What of a schedule is not said by Quartz and the settings of a job.
fn losses(name: &str, schedule: &ScheduleSpec, gaps: &mut Vec<Gap>) {
    let mut lost = |what: String, why: &str, instead: &str| {
        gaps.push(Gap::of(name, what, why.to_owned(), instead));
    };
    if schedule.catch_up != CatchUp::None {
        lost(
            "`catch_up`".to_owned(),
            "a slot that Databricks missed is gone",
            "leave it to `lakeops serve`, or repair the job's run",
        );
    }
    if !schedule.jitter.0.is_zero() {
        lost(
            format!("`jitter: {}`", schedule.jitter),
            "jobs start at their slot",
            "what must not meet holds a lock of the target anyway",
        );
    }
    if schedule.overlap == Overlap::Allow {
        lost(
            "`overlap: allow`".to_owned(),
            "one run of a job at a time",
            "raise `max_concurrent_runs` by hand",
        );
    }
    if schedule.overlap == Overlap::QueueOne {
        lost(
            "`overlap: queue_one`".to_owned(),
            "the queue of a job holds more than one run",
            "the server's locks put them one behind the other",
        );
    }
    if shifts(schedule) {
        lost(
            format!("the clock of {} is changed twice a year", schedule.time_zone),
            "Quartz skips a time that the clock skips, and may fire twice when it is shown twice",
            "write the schedule in UTC",
        );
    }
}

/// Whether the clock of the schedule's zone is changed: noon is not at the same time of day in UTC.
fn shifts(schedule: &ScheduleSpec) -> bool {
    use crate::kernel::Timestamp;
    const HALF_A_YEAR: i64 = 182 * 86_400_000;
    // 2026-01-15 and half a year later: one of them is in summer, wherever there is one.
    const WINTER: i64 = 1_768_435_200_000;
    let Ok(daily) = CronSchedule::parse("0 12 * * *", &schedule.time_zone) else { return false };
    let noon = |day: i64| {
        let next = daily.next_after(Timestamp::from_millis(day));
        next.map(|at| at.as_millis().rem_euclid(86_400_000))
    };
    noon(WINTER) != noon(WINTER + HALF_A_YEAR)
}

fn asks(workflow: &Workflow) -> bool {
    let mut all = [&workflow.steps, &workflow.on_failure, &workflow.always].into_iter().flatten();
    all.any(|step| {
        let required = step.spec.approval.as_ref();
        required.is_some_and(|mode| mode.value == ApprovalMode::Required)
            || match &step.action {
                Action::Approval(_) => true,
                Action::Workflow(inner) => asks(inner),
                _ => step.risk == crate::kernel::Risk::High,
            }
    })
}

fn job(workflow: &Workflow, schedule: &ScheduleSpec, key: &str, quartz: String) -> Job {
    let name = &workflow.spec.name.value;
    let work = match &workflow.spec.limits.timeout {
        Some(Setting::Written(span)) => *span,
        Some(Setting::Computed(_)) | None => MOST_WORK,
    };
    let follow = work.0.as_secs() + PATIENCE.0.as_secs();
    let task = |verb: &str| {
        let arguments = [
            verb,
            "--url",
            "${var.lakeops_url}",
            "--token",
            "${var.token_scope}/${var.token_key}",
            "--workflow",
            name,
            "--schedule",
            &schedule.id,
            "--slot",
            "{{job.trigger.time.iso_datetime}}",
            "--repair",
            "{{job.repair_count}}",
            "--params",
            "{{job.parameters.params}}",
        ];
        Script {
            python_file: format!("./{SCRIPT}"),
            parameters: arguments.map(str::to_owned).into(),
        }
    };
    let start = Task {
        task_key: "start",
        depends_on: Vec::new(),
        run_if: "ALL_SUCCESS",
        max_retries: 3,
        min_retry_interval_millis: 15_000,
        retry_on_timeout: true,
        timeout_seconds: 900,
        environment_key: "default",
        spark_python_task: task("start"),
    };
    let follow_task = Task {
        task_key: "follow",
        depends_on: vec![Dependency { task_key: "start" }],
        max_retries: 2,
        min_retry_interval_millis: 30_000,
        timeout_seconds: follow,
        spark_python_task: task("follow"),
        ..start.clone()
    };
    Job {
        name: format!("lakeops {key}"),
        description: workflow.spec.description.clone(),
        tags: [("made_by", "lakeops".to_owned()), ("workflow", name.clone())].into(),
        max_concurrent_runs: 1,
        queue: Queue { enabled: schedule.overlap == Overlap::QueueOne },
        timeout_seconds: follow + 1_800,
        schedule: Schedule {
            quartz_cron_expression: quartz,
            timezone_id: schedule.time_zone.clone(),
            pause_status: "UNPAUSED",
        },
        parameters: vec![Parameter { name: "params", default: "{}".to_owned() }],
        environments: vec![Environment {
            environment_key: "default",
            spec: EnvironmentSpec { environment_version: "2" },
        }],
        tasks: vec![start, follow_task],
        webhook_notifications: Notifications {
            on_failure: vec![Destination { id: "${var.notification_destination}" }],
        },
    }
}
