//! Makes an answer of what was looked at: sentences with figures, rows, and the command that would fix it.
//!
//! It looks at nothing itself: a workflow looks at what `interpret_question` chose, and hands the outputs over.
//!
//! Reads: nothing. Changes: nothing. Undo: nothing to undo.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kernel::{Failure, Risk};
use crate::tools::analysis::ask::interpretation::{Intent, IntentKind, Interpretation};
use crate::tools::analysis::ask::rank::Correction;
use crate::tools::analysis::ask::reply::{Evidence, Fix, evidence};
use crate::tools::analysis::ask::sources;
use crate::tools::analysis::missing::NotMeasured;
use crate::tools::context::ReadContext;
use crate::tools::tool::{AnyTool, Family, Read, ReadTool, ToolMeta};

pub(super) static TOOL: AnyTool = AnyTool::Read(&Read(AnswerQuestion));

struct AnswerQuestion;

/// What there is to answer with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// What the question was taken for: the output of `interpret_question`.
    interpretation: Interpretation,
    /// What was looked at. What was skipped is passed over.
    #[serde(default)]
    looked: Vec<Looked>,
}

/// What one source returned.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Looked {
    /// The tool, or the file of `sql/`.
    source: String,
    /// Its output.
    output: Value,
}

/// The answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// The question.
    question: String,
    /// Whether there is an answer.
    answered: bool,
    /// The answer in sentences.
    answer: String,
    /// What it rests on.
    evidence: Vec<Evidence>,
    /// The commands that would fix what is wrong.
    fixes: Vec<Fix>,
    /// What the question may be about and nothing was looked at for, with the command that does it.
    pointers: Vec<Intent>,
    /// What is near, where there is no answer.
    nearest: Vec<Intent>,
    /// Words that were read as others.
    corrections: Vec<Correction>,
    /// Statements in the question: they were not run.
    left_out: Vec<String>,
    /// What could not be measured.
    not_measured: Vec<NotMeasured>,
}

impl ReadTool for AnswerQuestion {
    const META: ToolMeta = ToolMeta {
        name: "answer_question",
        family: Family::Health,
        risk: Risk::Low,
        revision: 1,
        summary: "Makes an answer of what was looked at for a question",
        sql: &[],
        secrets: &[],
    };
    type Params = Params;
    type Output = Output;

    async fn read(&self, _cx: &ReadContext<'_>, params: Params) -> Result<Output, Failure> {
        Ok(answer(params))
    }
}

fn answer(params: Params) -> Output {
    let Interpretation { question, intents, nearest, corrections, left_out, sources, .. } =
        params.interpretation;
    let asked: BTreeSet<String> = question
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() > 2)
        .map(str::to_lowercase)
        .collect();
    let mut found = Vec::new();
    let mut not_measured = Vec::new();
    // In the order of what was chosen, whatever the order of the steps.
    for name in &sources {
        let Some(source) = sources::find(name) else { continue };
        let looked = params.looked.iter().find(|looked| looked.source == *name);
        match looked.map(|looked| &looked.output) {
            None => not_measured.push(NotMeasured::new(name, "nothing looked at it")),
            Some(output) => match state(output) {
                State::Skipped => {}
                State::Failed(why) => not_measured.push(NotMeasured::new(name, why)),
                State::Done => {
                    for one in missing(output) {
                        if !not_measured.contains(&one) {
                            not_measured.push(one);
                        }
                    }
                    found.push(evidence(source, output, &asked));
                }
            },
        }
    }
    let mut fixes: Vec<Fix> = Vec::new();
    for one in found.iter().filter(|one| one.is_wrong) {
        let remedies = sources::find(&one.source).map_or(&[][..], |source| source.remedies);
        for fix in remedies.iter().map(Fix::from) {
            // Two findings may have one remedy, in words of their own.
            if !fixes.iter().any(|known| known.command == fix.command) {
                fixes.push(fix);
            }
        }
    }
    let pointers: Vec<Intent> =
        intents.into_iter().filter(|intent| intent.kind != IntentKind::Source).collect();
    let text = sentences(&found, &pointers, &not_measured, &nearest);
    let answered = !found.is_empty() || !pointers.is_empty();
    let nearest = if answered { Vec::new() } else { nearest };
    Output {
        question,
        answered,
        answer: text,
        evidence: found,
        fixes,
        pointers,
        nearest,
        corrections,
        left_out,
        not_measured,
    }
}

enum State {
    Skipped,
    Failed(String),
    Done,
}

fn state(output: &Value) -> State {
    let is = |field: &str| output.get(field).and_then(Value::as_bool) == Some(true);
    if is("failed") {
        let why = output.get("error").and_then(Value::as_str).unwrap_or("it failed");
        State::Failed(why.to_owned())
    } else if is("skipped") {
        State::Skipped
    } else {
        State::Done
    }
}

fn missing(output: &Value) -> Vec<NotMeasured> {
    let listed = output.get("not_measured").cloned().unwrap_or_default();
    serde_json::from_value(listed).unwrap_or_default()
}

fn sentences(
    found: &[Evidence],
    pointers: &[Intent],
    not_measured: &[NotMeasured],
    nearest: &[Intent],
) -> String {
    let mut lines: Vec<String> = found.iter().map(|one| format!("{}.", one.says)).collect();
    if let (true, Some(first)) = (found.is_empty(), not_measured.first()) {
        lines.push(format!("{} could not be looked at: {}.", first.what, first.why));
    }
    // Beside evidence they are only listed.
    if lines.is_empty() {
        let says = |pointer: &Intent| {
            format!("{}: `{}`.", pointer.says.trim_end_matches('.'), pointer.command)
        };
        lines.extend(pointers.iter().map(says));
    }
    if lines.is_empty() {
        let near: Vec<&str> = nearest.iter().map(|intent| intent.command.as_str()).collect();
        let near = if near.is_empty() {
            "`lakeops tools` lists what there is".to_owned()
        } else {
            format!("the nearest: {}", near.join(", "))
        };
        return format!("Nothing in the catalogue answers this; {near}.");
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn intent(name: &str, kind: IntentKind) -> Intent {
        Intent {
            name: name.to_owned(),
            kind,
            score: 9.0,
            cover: 1.0,
            because: Vec::new(),
            says: format!("does {name}"),
            command: format!("lakeops {name}"),
        }
    }

    fn answered(intents: Vec<Intent>, looked: Vec<(&str, Value)>) -> Output {
        let sources = intents.iter().filter(|it| it.kind == IntentKind::Source);
        let sources = sources.map(|it| it.name.clone()).collect();
        let interpretation = Interpretation {
            question: "is orders fine?".to_owned(),
            answerable: !intents.is_empty(),
            intents,
            sources,
            nearest: vec![intent("near", IntentKind::Verb)],
            corrections: Vec::new(),
            left_out: Vec::new(),
        };
        let looked = looked.into_iter();
        let looked = looked.map(|(source, output)| Looked { source: source.to_owned(), output });
        answer(Params { interpretation, looked: looked.collect() })
    }

    #[test]
    fn what_is_wrong_comes_with_what_fixes_it() {
        let slots = "detect_invalid_indexes";
        let finding = json!({ "table": "s.orders", "index": "s.half", "size_bytes": 8192 });
        let sick = json!({ "findings": [finding] });
        let found = answered(vec![intent(slots, IntentKind::Source)], vec![(slots, sick)]);
        assert!(found.answered && found.nearest.is_empty());
        let says = "1 invalid index: table s.orders, index s.half, size bytes 8192.";
        assert_eq!(found.answer, says);
        assert_eq!(found.fixes[0].command, "lakeops run index_review");
        let well = answered(
            vec![intent(slots, IntentKind::Source)],
            vec![(slots, json!({ "findings": [] }))],
        );
        assert_eq!((well.answer.as_str(), well.fixes.len()), ("no invalid indexes.", 0));
    }

    #[test]
    fn what_failed_is_not_measured() {
        let branches = "inspect_project";
        let failed = json!({ "failed": true, "skipped": true, "error": "no workspace" });
        let found = answered(vec![intent(branches, IntentKind::Source)], vec![(branches, failed)]);
        assert!(!found.answered);
        assert_eq!(found.answer, "inspect_project could not be looked at: no workspace.");
        assert_eq!(found.not_measured[0].why, "no workspace");
    }

    #[test]
    fn without_an_answer_the_nearest_is_told() {
        let found = answered(Vec::new(), Vec::new());
        assert_eq!(
            found.answer,
            "Nothing in the catalogue answers this; the nearest: lakeops near."
        );
        let pointed = answered(vec![intent("audit", IntentKind::Verb)], Vec::new());
        assert_eq!(pointed.answer, "does audit: `lakeops audit`.");
    }
}
