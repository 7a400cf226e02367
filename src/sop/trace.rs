//! What an evaluation leaves behind besides its result: prints, rules, and what was missing.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use rhai::{Dynamic, Engine, EvalAltResult, EvalContext, Expression, Map, Target};
use serde::{Deserialize, Serialize};

use super::convert::look_up_dynamic;
use super::error::a_kind;
use super::reference::find_in;
use crate::kernel::Seen;

/// One rule that a script checked with `rule(name, condition, why)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleTrace {
    /// The rule's name.
    pub rule: String,
    /// Whether its condition held.
    pub verdict: bool,
    /// What the script said about it.
    pub why: String,
    /// The variables and fields that the condition reads, with their values.
    pub seen: Vec<Seen>,
}

const MAX_PRINTS: usize = 100;
const MAX_PRINT_BYTES: usize = 2_000;
const MAX_RULES: usize = 1_000;

/// The last resort against work that the count of operations does not show, such as copying ever
/// deeper nested values. No sensible text comes near it. It is a processor's time: how long a text is kept
/// waiting for one is up to the machine.
const DEADLINE: Duration = Duration::from_secs(1);

/// What an evaluation leaves behind.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) printed: Vec<String>,
    pub(super) rules: Vec<RuleTrace>,
    /// Fields that were missing, with those that were there.
    pub(super) missing: Vec<(String, Vec<String>)>,
    budget: u64,
    started: Option<Start>,
}

/// How long an evaluation goes on before its work is measured. Asking the system for a processor's time costs
/// more than most evaluations, and who just began has not worked for long.
const UNMEASURED: Duration = Duration::from_millis(20);

/// When an evaluation began.
#[derive(Clone, Copy, Debug)]
struct Start {
    at: Instant,
    /// What this thread had worked when it was first measured.
    worked: Option<Duration>,
}

impl Start {
    fn now() -> Self {
        Self { at: Instant::now(), worked: None }
    }

    fn is_late(&mut self) -> bool {
        let elapsed = self.at.elapsed();
        if elapsed > UNMEASURED && self.worked.is_none() {
            self.worked = worked();
        }
        elapsed > DEADLINE
            && self
                .worked
                .zip(worked())
                .is_none_or(|(before, now)| now.saturating_sub(before) > DEADLINE)
    }
}

/// The processor's time that this thread has had, where the system tells it.
fn worked() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).ok().map(Duration::from)
}

thread_local! {
    /// The evaluation that runs on this thread. One engine serves all threads, and its callbacks
    /// have no other way to know for whom they work.
    static CURRENT: RefCell<Trace> = RefCell::default();
}

/// Evaluates with a fresh trace, which may do `budget` operations.
pub(super) fn record<T>(budget: u64, evaluate: impl FnOnce() -> T) -> (T, Trace) {
    let started = Some(Start::now());
    let before = CURRENT.replace(Trace { budget, started, ..Trace::default() });
    let result = evaluate();
    (result, CURRENT.replace(before))
}

/// Connects an engine to the current trace.
pub(super) fn register(engine: &mut Engine) {
    engine.on_print(print);
    engine.on_debug(|text, _, position| print(&format!("{position:?}: {text}")));
    engine.on_progress(progress);
    let syntax = ["rule", "(", "$expr$", ",", "$expr$", ",", "$expr$", ")"];
    // The symbols are constant and valid, so there is nothing to report.
    let _registered = engine.register_custom_syntax(syntax, false, rule);
}

/// Makes an engine note which fields are missing, and go on. It serves to explain a failure.
pub(super) fn note_missing(engine: &mut Engine) {
    engine.on_map_missing_property(|map, name, _| missing(map, name));
}

fn missing<'a>(map: &'a mut Map, name: &str) -> Result<Target<'a>, Box<EvalAltResult>> {
    let there = map.keys().map(ToString::to_string).collect();
    CURRENT.with_borrow_mut(|trace| trace.missing.push((name.to_owned(), there)));
    map.entry(name.into()).or_insert(Dynamic::UNIT).try_into()
}

fn print(text: &str) {
    CURRENT.with_borrow_mut(|trace| {
        if trace.printed.len() < MAX_PRINTS {
            trace.printed.push(text.chars().take(MAX_PRINT_BYTES).collect());
        }
    });
}

fn progress(operations: u64) -> Option<Dynamic> {
    CURRENT.with_borrow_mut(|trace| {
        if operations > trace.budget {
            return Some(format!("it takes more than {} operations", trace.budget).into());
        }
        let late =
            operations.is_multiple_of(8) && trace.started.as_mut().is_some_and(Start::is_late);
        late.then(|| format!("it takes longer than {DEADLINE:?}").into())
    })
}

fn rule(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    inputs: &[Expression<'_>],
) -> Result<Dynamic, Box<EvalAltResult>> {
    let [name, condition, why] = inputs else {
        return Err("write `rule(name, condition, why)`".into());
    };
    let name = text(context, name)?;
    let verdict = context.eval_expression_tree(condition)?;
    let verdict = verdict.as_bool().map_err(|kind| {
        let kind = a_kind(kind);
        EvalAltResult::ErrorRuntime(
            format!("the condition of rule `{name}` is {kind} and not true or false").into(),
            condition.position(),
        )
    })?;
    let why = text(context, why)?;
    let seen = values(context, condition);
    CURRENT.with_borrow_mut(|trace| {
        if trace.rules.len() < MAX_RULES {
            trace.rules.push(RuleTrace { rule: name, verdict, why, seen });
        }
    });
    Ok(verdict.into())
}

fn text(
    context: &mut EvalContext<'_, '_, '_, '_, '_, '_>,
    expression: &Expression<'_>,
) -> Result<String, Box<EvalAltResult>> {
    context.eval_expression_tree(expression)?.into_string().map_err(|kind| {
        let kind = a_kind(kind);
        EvalAltResult::ErrorRuntime(
            format!("the name and the reason of a rule are texts, and this is {kind}").into(),
            expression.position(),
        )
        .into()
    })
}

fn values(context: &EvalContext<'_, '_, '_, '_, '_, '_>, condition: &Expression<'_>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    for found in find_in(condition) {
        let name = found.reference.to_string();
        if seen.iter().any(|seen| seen.name == name) {
            continue;
        }
        let value = context.scope().get(&found.reference.root);
        if let Some(value) = value.and_then(|value| look_up_dynamic(value, &found.reference.path)) {
            seen.push(Seen { name, value });
        }
    }
    seen
}
