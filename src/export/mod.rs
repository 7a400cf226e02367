//! What other schedulers and alert engines are given: files that are made once, from workflows and settings. PURE.
//!
//! A one-way export: the run, its journal, its approvals and its locks stay with `lakeops serve`, and a job only
//! asks for the run and follows it. What the other side cannot say becomes a [`Gap`], and is written into a
//! file beside the rest; nothing is dropped in silence.

mod alerts;
mod job;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

pub use alerts::{Alert, Places, alerts};
pub use job::Job;

use self::job::{USUAL_JOBS, UsualJob, Work};
use crate::config::settings::Settings;
use crate::workflow::Workflow;

const TASK: &str = include_str!("lakeops_task.py");
const BUNDLE: &str = "databricks.yml";
const GAPS: &str = "NOT_EXPRESSED.md";

/// Something that the other side cannot say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Gap {
    /// The workflow; empty: all of them.
    pub workflow: String,
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// What to do instead.
    pub instead: String,
}

impl Gap {
    fn of(workflow: &str, what: impl Into<String>, why: impl Into<String>, instead: &str) -> Self {
        let (workflow, what, why) = (workflow.to_owned(), what.into(), why.into());
        Self { workflow, what, why, instead: instead.to_owned() }
    }
}

/// What is exported.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The workflows, by name.
    pub workflows: &'a BTreeMap<String, Arc<Workflow>>,
    /// The thresholds.
    pub settings: &'a Settings,
    /// After how long the same is told again, in seconds.
    pub repeat_after: u64,
    /// The name of the bundle.
    pub name: &'a str,
    /// The workspace of each target, where it is known; otherwise the CLI's own login decides.
    pub hosts: &'a BTreeMap<String, String>,
    /// The service principal that staging and prod run as, where it is known; otherwise whoever deploys.
    pub run_as: Option<&'a str>,
}

/// The targets of the bundle.
pub const TARGETS: [&str; 3] = ["dev", "staging", "prod"];

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// The files, by their names.
    #[serde(skip)]
    pub files: BTreeMap<&'static str, String>,
    /// The jobs.
    pub jobs: Vec<Line>,
    /// The keys of the alerts.
    pub alerts: Vec<String>,
    /// What cannot be said there.
    pub not_expressed: Vec<Gap>,
}

/// A job in short.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its key in the bundle.
    pub job: String,
    /// The workflow that it starts.
    pub workflow: String,
    /// The cron that the workflow says.
    pub cron: String,
    /// The same for Quartz.
    pub quartz: String,
    /// The zone.
    pub time_zone: String,
    /// Whether it is one of the usual jobs.
    pub usual: bool,
}

/// A Databricks Asset Bundle, as it is written.
#[derive(Serialize)]
struct Document<'a> {
    bundle: Name<'a>,
    variables: BTreeMap<&'static str, Variable>,
    targets: BTreeMap<&'static str, Target<'a>>,
    resources: Resources,
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct Variable {
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<&'static str>,
}

#[derive(Serialize)]
struct Target<'a> {
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<Workspace<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_as: Option<RunAs<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    presets: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct RunAs<'a> {
    service_principal_name: &'a str,
}

#[derive(Serialize)]
struct Workspace<'a> {
    host: &'a str,
}

#[derive(Serialize)]
struct Resources {
    jobs: BTreeMap<String, Job>,
    alerts: BTreeMap<String, Alert>,
}

/// An Asset Bundle with a job for each schedule and an alert for each threshold.
pub fn databricks(input: Input<'_>) -> Result<Export, serde_yaml::Error> {
    let mut gaps = general();
    if input.run_as.is_none() {
        let (what, why) = ("who staging and prod run as", "nobody is named: it is whoever deploys");
        gaps.push(Gap::of("", what, why, "`--run-as` names a service principal"));
    }
    let (mut jobs, mut lines) = (BTreeMap::new(), Vec::new());
    let scheduled =
        || input.workflows.iter().filter(|(_, workflow)| !workflow.spec.schedule.is_empty());
    let mut usual_jobs: BTreeMap<&str, &UsualJob> = BTreeMap::new();
    for usual in &USUAL_JOBS {
        let found = scheduled().find(|(name, workflow)| match usual.work {
            Work::Workflow(wanted) => *name == wanted,
            Work::Tool(tool) => workflow.tools.contains_key(tool),
        });
        match found {
            Some((name, _)) => {
                usual_jobs.insert(name, usual);
            }
            None => gaps.push(missing(usual)),
        }
    }
    for (name, workflow) in input.workflows {
        let usual = usual_jobs.get(name.as_str()).copied();
        for made in job::of(workflow, usual, &mut gaps) {
            let Entry::Vacant(place) = jobs.entry(made.key) else {
                let what = format!("its schedule `{}`", made.cron);
                let why = "the job of another workflow has the key that its own would have";
                gaps.push(Gap::of(name, what, why, "rename one of the two"));
                continue;
            };
            lines.push(Line {
                job: place.key().clone(),
                workflow: made.workflow,
                cron: made.cron,
                quartz: made.job.schedule.quartz_cron_expression.clone(),
                time_zone: made.job.schedule.timezone_id.clone(),
                usual: usual.is_some(),
            });
            place.insert(made.job);
        }
        if !workflow.spec.triggers.is_empty() {
            gaps.push(Gap::of(
                name,
                "what events start it",
                "events are in the journal, and Databricks sees none of them",
                "leave it to `lakeops serve`, which starts it whoever else schedules",
            ));
        }
    }
    for metric in input.settings.thresholds.keys().filter(|name| !alerts::is_plain(name)) {
        let what = format!("the threshold of `{metric}`");
        gaps.push(Gap::of("", what, "its name cannot stand in a query", "rename the metric"));
    }
    let alerts = alerts(input.settings, &places(input.repeat_after));
    gaps.sort();
    let keys = alerts.keys().cloned().collect();
    let document = Document {
        bundle: Name { name: input.name },
        variables: variables(),
        targets: targets(input.hosts, input.run_as),
        resources: Resources { jobs, alerts },
    };
    let yaml = format!("{HEAD}{}", serde_yaml::to_string(&document)?);
    let files =
        BTreeMap::from([(BUNDLE, yaml), (job::SCRIPT, TASK.to_owned()), (GAPS, gaps_text(&gaps))]);
    Ok(Export { files, jobs: lines, alerts: keys, not_expressed: gaps })
}

const HEAD: &str = "\
# Written by `lakeops export databricks`. Change the workflows and export again rather than this file.
# Each job asks the server at `lakeops_url` for one run per slot, and follows it: see lakeops_task.py.
# What could not be said here is in NOT_EXPRESSED.md.
";

fn places(repeat_after: u64) -> Places {
    Places {
        catalog: "${var.history_catalog}".to_owned(),
        schema: "${var.history_schema}".to_owned(),
        warehouse: "${var.warehouse_id}".to_owned(),
        destination: "${var.notification_destination}".to_owned(),
        repeat_after,
    }
}

fn variables() -> BTreeMap<&'static str, Variable> {
    let of = |description, default| Variable { description, default };
    BTreeMap::from([
        (
            "lakeops_url",
            of("Where `lakeops serve` is reached by https; a proxy in front of it ends TLS", None),
        ),
        ("token_scope", of("The secret scope with the token of the server", Some("lakeops"))),
        ("token_key", of("The key of the token in that scope", Some("api_token"))),
        ("warehouse_id", of("The SQL warehouse that alerts run on", None)),
        (
            "notification_destination",
            of("The notification destination that failed jobs and alerts are told to", None),
        ),
        (
            "history_catalog",
            of("The catalogue that the history is registered in", Some("ops_catalog")),
        ),
        (
            "history_schema",
            of("The schema that the history is registered in", Some("lakebase_ops")),
        ),
    ])
}

fn targets<'a>(
    hosts: &'a BTreeMap<String, String>,
    run_as: Option<&'a str>,
) -> BTreeMap<&'static str, Target<'a>> {
    let target = |name: &'static str| {
        let workspace = hosts.get(name).map(|host| Workspace { host });
        let is_dev = name == "dev";
        let mode = if is_dev { "development" } else { "production" };
        let run_as = run_as.filter(|_| !is_dev);
        let run_as = run_as.map(|service_principal_name| RunAs { service_principal_name });
        // Mode development prefixes names and pauses schedules; staging gets a prefix to be told from prod.
        let presets =
            if name == "staging" { [("name_prefix", "[staging] ")].into() } else { [].into() };
        (name, Target { mode, default: is_dev.then_some(true), workspace, run_as, presets })
    };
    TARGETS.map(target).into()
}

fn missing(usual: &UsualJob) -> Gap {
    let (wanted, instead) = match usual.work {
        Work::Workflow(name) => (
            format!("there is no workflow `{name}` with a schedule"),
            "write one, or copy the shipped one",
        ),
        Work::Tool(tool) => (
            format!("no workflow with a schedule uses `{tool}`"),
            "write a workflow that does, with a schedule",
        ),
    };
    Gap::of("", format!("the usual job `{}` (`{}`)", usual.name, usual.cron), wanted, instead)
}

/// What holds for every job.
fn general() -> Vec<Gap> {
    let of = |what: &str, why: &str, instead: &str| Gap::of("", what, why, instead);
    vec![
        of(
            "who schedules",
            "the server's own schedules go on beside the jobs, under keys of their own",
            "`lakeops schedule pause ID` for each that is exported",
        ),
        of(
            "the address of the server",
            "it listens on loopback only",
            "put a proxy that ends TLS in front of it, and give that as `lakeops_url`",
        ),
        of(
            "steps, retries, undoing and locks of a run",
            "a job knows tasks, and nothing of changes and their inverses",
            "the run has them, on the server; the job has two tasks: ask for it, follow it",
        ),
        of(
            "parameters",
            "they are given as one JSON text, the job's parameter `params`",
            "types and defaults are checked by the server",
        ),
    ]
}

fn gaps_text(gaps: &[Gap]) -> String {
    let mut text = String::from(
        "# What could not be said in a bundle\n\nWritten by `lakeops export databricks`, beside the bundle.\n\n\
         | workflow | what | why | instead |\n| --- | --- | --- | --- |\n",
    );
    for gap in gaps {
        let name = if gap.workflow.is_empty() { "all" } else { &gap.workflow };
        let cell = |text: &str| text.replace('|', "\\|");
        let (what, why, instead) = (cell(&gap.what), cell(&gap.why), cell(&gap.instead));
        let _ = writeln!(text, "| {name} | {what} | {why} | {instead} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Catalog;
    use crate::workflow::{Library, Resolver};

    fn workflow(name: &str, cron: &str) -> String {
        format!(
            "version: 1\nname: {name}\ndescription: Look.\nschedule:\n  - {{ id: {name}, cron: \"{cron}\" }}\n\
             steps:\n  - id: look\n    tool: monitor_connections\n"
        )
    }

    #[test]
    fn a_job_whose_key_is_taken_is_told_and_not_lost() {
        // Either of two days: two jobs, and the second has the key of the other workflow's.
        let library = Library::new()
            .with_workflow("look.yaml", workflow("look", "0 4 13 * 5"))
            .with_workflow("look_2.yaml", workflow("look_2", "0 5 * * *"));
        let catalog = Catalog::builtin();
        let resolution = Resolver::new(&catalog, &library).resolve_all();
        assert!(resolution.is_sound(), "{:?}", resolution.diagnostics);
        let export = databricks(Input {
            workflows: &resolution.workflows,
            settings: &Settings::default(),
            repeat_after: 3_600,
            name: "ops",
            hosts: &BTreeMap::new(),
            run_as: None,
        })
        .unwrap();
        let jobs: Vec<_> = export.jobs.iter().map(|line| (&*line.job, &*line.workflow)).collect();
        assert_eq!(jobs, [("look", "look"), ("look_2", "look")]);
        let told = |gap: &&Gap| gap.workflow == "look_2" && gap.what.contains("0 5 * * *");
        assert!(export.not_expressed.iter().any(|gap| told(&gap)), "{:?}", export.not_expressed);
    }
}
