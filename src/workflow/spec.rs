//! What is written in a workflow file, with its places: the first stage of reading it.

use std::collections::BTreeSet;

use super::elements::{
    DefaultsSpec, LimitsSpec, ParamSpec, RegistrationSpec, ScheduleSpec, StepSpec, TriggerSpec,
};
use super::source::{Place, SourceText, Spanned};
use super::tree::Node;
use crate::kernel::Digest;

/// A workflow file as it is written. Nothing in it is resolved yet.
#[derive(Clone, Debug)]
pub struct WorkflowSpec {
    /// The file.
    pub source: SourceText,
    /// SHA-256 of the file's content as canonical JSON: spacing, comments and the order of keys do
    /// not count.
    pub digest: Digest,
    /// Whether parts of the file could not be read, so that something may only seem to be missing.
    pub damaged: bool,
    /// Steps and parameters that could not be read: they are there, but nothing is known of them.
    pub lost: BTreeSet<String>,
    /// Its name.
    pub name: Spanned<String>,
    /// What it is for.
    pub description: String,
    /// Its parameters.
    pub params: Vec<ParamSpec>,
    /// Its target: a template.
    pub target: Option<Node>,
    /// When it runs by the clock.
    pub schedule: Vec<ScheduleSpec>,
    /// Where each schedule is written.
    pub schedule_places: Vec<Place>,
    /// What events start it.
    pub triggers: Vec<TriggerSpec>,
    /// Its lock: a template.
    pub lock: Option<Spanned<String>>,
    /// What bounds a run.
    pub limits: LimitsSpec,
    /// What steps inherit.
    pub defaults: DefaultsSpec,
    /// Its steps, in the order of the file.
    pub steps: Vec<StepSpec>,
    /// Steps that run when the run failed.
    pub on_failure: Vec<StepSpec>,
    /// Steps that run at the end of every run.
    pub always: Vec<StepSpec>,
    /// Its outputs: expressions.
    pub outputs: Vec<(Spanned<String>, Spanned<String>)>,
    /// How it is offered as a tool.
    pub registration: Option<RegistrationSpec>,
}
