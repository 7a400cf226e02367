//! From what is written to what it means: [`WorkflowSpec`] to [`Workflow`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::assemble;
use super::diagnostic::{Diagnostic, Reporter};
use super::parse;
use super::resolved::Workflow;
use super::source::{Place, SourceText};
use super::sources::Sources;
use super::spec::WorkflowSpec;
use super::types;
use crate::sop::Sandbox;
use crate::tools::{AnyTool, Catalog};

/// Resolves workflows against tools, scripts, SQL files and each other.
pub struct Resolver<'a> {
    /// The tools.
    pub catalog: &'a Catalog,
    /// Everything else that can be named.
    pub sources: &'a dyn Sources,
    sandbox: Sandbox,
}

/// What could be resolved, and every mistake in every file that was read for it.
#[derive(Debug, Default)]
pub struct Resolution {
    /// The workflows without a mistake, by name.
    pub workflows: BTreeMap<String, Arc<Workflow>>,
    /// The mistakes, file by file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Resolution {
    /// The workflow of a name, unless it has mistakes.
    pub fn get(&self, name: &str) -> Option<&Arc<Workflow>> {
        self.workflows.get(name)
    }

    /// Whether nothing keeps the workflows from being planned.
    pub fn is_sound(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

impl<'a> Resolver<'a> {
    /// A resolver over these tools and sources.
    pub fn new(catalog: &'a Catalog, sources: &'a dyn Sources) -> Self {
        Self { catalog, sources, sandbox: Sandbox::keeping() }
    }

    /// Resolves one workflow and what it embeds. An unknown name yields nothing at all.
    pub fn resolve(&self, name: &str) -> Resolution {
        let mut session = Session::new(self);
        session.load(name);
        session.finish()
    }

    /// Resolves all workflows of the sources.
    pub fn resolve_all(&self) -> Resolution {
        let mut session = Session::new(self);
        for name in self.sources.workflows() {
            session.load(name);
        }
        session.check_schedules();
        session.finish()
    }

    /// Resolves a file that need not be among the sources.
    pub fn resolve_file(&self, source: &SourceText) -> Resolution {
        let mut session = Session::new(self);
        session.read(source.stem().to_owned(), source);
        session.finish()
    }
}

/// What a name of a workflow stands for.
pub(super) enum Loaded {
    /// A sound workflow.
    Sound(Arc<Workflow>),
    /// A workflow with mistakes, which are reported.
    Broken,
    /// A workflow that is being resolved: the names from it on embed each other.
    Open(Vec<String>),
    /// Nothing.
    Unknown,
}

/// The types of a tool's arguments and output.
#[derive(Clone, Debug)]
pub(super) struct ToolTypes {
    pub(super) params: Value,
    pub(super) output: Value,
}

/// One resolution: files are read once, and each file's mistakes are told once.
pub(super) struct Session<'r> {
    pub(super) resolver: &'r Resolver<'r>,
    types: BTreeMap<&'static str, Arc<ToolTypes>>,
    done: BTreeMap<String, Option<Arc<Workflow>>>,
    open: Vec<String>,
    found: Vec<Diagnostic>,
}

impl<'r> Session<'r> {
    const fn new(resolver: &'r Resolver<'r>) -> Self {
        Self {
            resolver,
            types: BTreeMap::new(),
            done: BTreeMap::new(),
            open: Vec::new(),
            found: Vec::new(),
        }
    }

    fn finish(mut self) -> Resolution {
        self.found.sort_by(|a, b| {
            (&a.file, a.span, a.code, &a.message).cmp(&(&b.file, b.span, b.code, &b.message))
        });
        self.found.dedup();
        let sound = self.done.into_iter().filter_map(|(name, found)| Some((name, found?)));
        Resolution { workflows: sound.collect(), diagnostics: self.found }
    }

    /// The sandbox that expressions are compiled in.
    pub(super) const fn sandbox(&self) -> &'r Sandbox {
        &self.resolver.sandbox
    }

    /// The types of a tool, worked out once.
    pub(super) fn types_of(&mut self, tool: AnyTool) -> Arc<ToolTypes> {
        let entry = self.types.entry(tool.meta().name).or_insert_with(|| {
            let erased = tool.erased();
            let (params, output) = (erased.params_schema(), erased.output_schema());
            Arc::new(ToolTypes { params: types::inlined(&params), output: types::inlined(&output) })
        });
        Arc::clone(entry)
    }

    /// The workflow of a name, resolved on first use.
    pub(super) fn load(&mut self, name: &str) -> Loaded {
        if let Some(at) = self.open.iter().position(|open| open == name) {
            let path = self.open.iter().skip(at).map(String::as_str).chain([name]);
            return Loaded::Open(path.map(str::to_owned).collect());
        }
        if !self.done.contains_key(name) {
            let Some(source) = self.resolver.sources.workflow(name) else { return Loaded::Unknown };
            self.read(name.to_owned(), &source.clone());
        }
        match self.done.get(name) {
            Some(Some(workflow)) => Loaded::Sound(Arc::clone(workflow)),
            _ => Loaded::Broken,
        }
    }

    /// Whether a name is that of a workflow which is offered as a tool.
    pub(super) fn is_registered(&self, name: &str) -> bool {
        let source = self.resolver.sources.workflow(name);
        source.is_some_and(|source| parse(source).0.is_some_and(|spec| spec.registration.is_some()))
    }

    fn read(&mut self, name: String, source: &SourceText) {
        self.open.push(name.clone());
        let (spec, mistakes) = parse(source);
        let mut reporter = Reporter::new(source.clone());
        reporter.extend(mistakes);
        let workflow = spec.and_then(|spec| {
            check_name(&spec, &name, &mut reporter);
            assemble::assemble(self, spec, &mut reporter)
        });
        let sound = workflow.filter(|_| !reporter.has_errors()).map(Arc::new);
        self.done.insert(name, sound);
        self.found.extend(reporter.finish());
        self.open.pop();
    }

    /// Reports schedules of two workflows with one id: slots are kept by it, so one of them would never run.
    fn check_schedules(&mut self) {
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        let mut found = Vec::new();
        for workflow in self.done.values().flatten() {
            let spec = &workflow.spec;
            let own = spec.name.value.as_str();
            for (schedule, place) in spec.schedule.iter().zip(&spec.schedule_places) {
                let owner = *owners.entry(&schedule.id).or_insert(own);
                if owner != own {
                    let id = &schedule.id;
                    let message =
                        format!("workflow `{owner}` has a schedule with the id `{id}` as well");
                    let help = "slots are kept by the id: give each an `id` of its own";
                    let path = spec.source.path();
                    let mistake = Diagnostic::error("workflow::schedule_id", path, message);
                    found.push(mistake.at(&spec.source, *place).with_help(help));
                }
            }
        }
        self.found.extend(found);
    }

    /// Keeps a mistake of another file, such as a script.
    pub(super) fn keep(&mut self, found: Diagnostic) {
        self.found.push(found);
    }
}

/// A workflow is found by its file's name, so the two must be the same.
fn check_name(spec: &WorkflowSpec, file: &str, reporter: &mut Reporter) {
    let name = &spec.name;
    if name.value != file && !reporter.has_errors() {
        let message = format!("workflow `{}` stands in the file of `{file}`", name.value);
        let help = format!("write `name: {file}`, or rename the file to `{}.yaml`", name.value);
        reporter.hinted("workflow::name", name.place, message, help);
    }
}

/// Reports that workflows embed each other.
pub(super) fn report_recursion(path: &[String], place: Place, reporter: &mut Reporter) {
    let path: Vec<String> = path.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("workflows embed each other: {}", path.join(" -> "));
    reporter.hinted("workflow::recursion", place, message, "a workflow cannot contain itself");
}
