//! Finds what can answer a question: tools, named queries, workflows and verbs, by the words of the question.
//!
//! Lexical retrieval over the catalogue, with a reviewed list of what people call things; no model, no
//! network, the same answer every time. Statements in the question are set aside: nothing of it is ever run.
//!
//! Reads: nothing but the catalogue. Changes: nothing. Undo: nothing to undo.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::{Failure, Risk};
use crate::tools::Catalog;
use crate::tools::analysis::ask::interpretation::{Intent, IntentKind, Interpretation};
use crate::tools::analysis::ask::pointed::{POINTED, VERBS};
use crate::tools::analysis::ask::question::Question;
use crate::tools::analysis::ask::rank::{Document, Index, Match};
use crate::tools::analysis::ask::reply::command_of;
use crate::tools::analysis::ask::sources::{self, SOURCES};
use crate::tools::analysis::ask::words::LONGEST;
use crate::tools::analysis::number::rounded;
use crate::tools::context::ReadContext;
use crate::tools::sql_catalog;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(InterpretQuestion));

/// What answers by itself is preferred to what is only pointed at.
const PREFERRED: f64 = 1.25;
/// What matches this much worse than the best is left out.
const NEAR_THE_BEST: f64 = 0.6;
/// How many are listed that are near and not chosen.
const NEAREST: usize = 5;

struct InterpretQuestion;

/// What is asked.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// The question, in English.
    question: String,
    /// The workflows that can be pointed at as well.
    #[serde(default)]
    workflows: Vec<Offered>,
    /// How many are chosen at most.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 10))]
    most: usize,
}

const fn three() -> usize {
    3
}

/// A workflow that can be pointed at.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Offered {
    /// Its name.
    name: String,
    /// What it does.
    description: String,
}

impl ReadTool for InterpretQuestion {
    const META: ToolMeta = ToolMeta {
        name: "interpret_question",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Finds the tools and queries that can answer a question in words",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Interpretation;

    async fn read(&self, _cx: &ReadContext<'_>, params: Params) -> Result<Interpretation, Failure> {
        let length = params.question.chars().count();
        if length > LONGEST {
            let text = format!("the question has {length} characters; {LONGEST} are read");
            return Err(
                Failure::permanent("ask::too_long", text).with_help("ask one thing at a time")
            );
        }
        Ok(interpret(&params))
    }
}

/// Something of the catalogue.
struct Known {
    name: String,
    kind: IntentKind,
    says: String,
    command: String,
    called: &'static str,
}

fn interpret(params: &Params) -> Interpretation {
    let question = Question::read(&params.question);
    let catalogue = catalogue(&params.workflows);
    let documents: Vec<Document<'_>> = catalogue
        .iter()
        .map(|known| Document {
            name: &known.name,
            text: known.says.clone(),
            called: known.called,
            prior: if known.kind == IntentKind::Source { PREFERRED } else { 1.0 },
        })
        .collect();
    let (matches, corrections) = Index::new(&documents).ask(&question.text);
    let best = matches.first().map_or(0.0, |best| best.score);
    let (chosen, others): (Vec<&Match>, Vec<&Match>) =
        matches.iter().partition(|it| it.answers() && it.score >= NEAR_THE_BEST * best);
    let intent = |found: &Match| -> Option<Intent> {
        let known = catalogue.get(found.document)?;
        Some(Intent {
            name: known.name.clone(),
            kind: known.kind,
            score: rounded(found.score),
            cover: rounded(found.cover),
            because: found.because.clone(),
            says: known.says.clone(),
            command: known.command.clone(),
        })
    };
    let rest = chosen.iter().skip(params.most).chain(&others);
    let nearest = rest.take(NEAREST).filter_map(|found| intent(found)).collect();
    let intents: Vec<Intent> =
        chosen.iter().take(params.most).filter_map(|found| intent(found)).collect();
    Interpretation {
        question: question.text.trim().to_owned(),
        answerable: !intents.is_empty(),
        sources: looked_at(&intents),
        intents,
        nearest,
        corrections,
        left_out: question.statements,
    }
}

/// The sources among the intents, and what is looked at together with the first.
fn looked_at(intents: &[Intent]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let first = intents.first().and_then(|intent| sources::find(&intent.name));
    let own = intents.iter().filter(|it| it.kind == IntentKind::Source).map(|it| it.name.as_str());
    for name in own.chain(first.into_iter().flat_map(|source| source.also.iter().copied())) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn catalogue(workflows: &[Offered]) -> Vec<Known> {
    let tools = Catalog::builtin();
    let mut all: Vec<Known> = SOURCES
        .iter()
        .map(|source| Known {
            name: source.name.to_owned(),
            kind: IntentKind::Source,
            says: match tools.find(source.name) {
                Some(tool) => tool.meta().summary.to_owned(),
                None => sql_catalog::find(source.name)
                    .and_then(|file| file.header("purpose"))
                    .unwrap_or_default(),
            },
            command: command_of(source.name),
            called: source.called,
        })
        .collect();
    for tool in tools.iter().filter(|tool| sources::find(tool.meta().name).is_none()) {
        let name = tool.meta().name;
        let called = POINTED.iter().find(|(pointed, _)| *pointed == name);
        all.push(Known {
            name: name.to_owned(),
            kind: IntentKind::Tool,
            says: tool.meta().summary.to_owned(),
            command: format!("lakeops tools show {name}"),
            called: called.map_or("", |(_, called)| *called),
        });
    }
    all.extend(VERBS.iter().map(|verb| Known {
        name: verb.command.to_owned(),
        kind: IntentKind::Verb,
        says: verb.does.to_owned(),
        command: verb.command.to_owned(),
        called: verb.called,
    }));
    all.extend(workflows.iter().map(|workflow| Known {
        name: workflow.name.clone(),
        kind: IntentKind::Workflow,
        says: workflow.description.clone(),
        command: format!("lakeops run {}", workflow.name),
        called: "",
    }));
    all
}
