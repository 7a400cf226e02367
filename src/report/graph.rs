//! The graph of a plan for other programs: Mermaid and DOT, with both kinds of edges. PURE.

use std::fmt::Write as _;

use super::fold::action;
use crate::plan::Plan;
use crate::plan::document::{Action, PlannedStep};

/// The languages that a graph is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Mermaid, as Markdown pages show it.
    Mermaid,
    /// DOT, as Graphviz reads it.
    Dot,
}

/// The graph. Edges that follow from an expression are dotted.
pub fn graph(plan: &Plan, language: Language) -> String {
    let mut writer = Writer { language, text: String::new(), depth: 1 };
    match language {
        Language::Mermaid => writer.text.push_str("flowchart TD\n"),
        Language::Dot => {
            let _ = writeln!(writer.text, "digraph {:?} {{", plan.body.workflow);
            writer.line("node [shape=box, fontname=\"sans-serif\"];");
        }
    }
    writer.steps("", &plan.body.steps);
    if language == Language::Dot {
        writer.text.push_str("}\n");
    }
    writer.text
}

struct Writer {
    language: Language,
    text: String,
    depth: usize,
}

impl Writer {
    fn line(&mut self, line: &str) {
        let _ = writeln!(self.text, "{}{line}", "  ".repeat(self.depth));
    }

    fn steps(&mut self, prefix: &str, steps: &[PlannedStep]) {
        for step in steps {
            self.node(prefix, step);
        }
        for step in steps {
            let to = name(prefix, &step.id);
            for need in &step.needs {
                let from = name(prefix, &need.step);
                let edge = match (self.language, need.inferred) {
                    (Language::Mermaid, false) => format!("{from} --> {to}"),
                    (Language::Mermaid, true) => format!("{from} -.-> {to}"),
                    (Language::Dot, false) => format!("{from} -> {to};"),
                    (Language::Dot, true) => format!("{from} -> {to} [style=dotted];"),
                };
                self.line(&edge);
            }
        }
    }

    fn node(&mut self, prefix: &str, step: &PlannedStep) {
        let id = name(prefix, &step.id);
        if let Action::Workflow(embedded) = &step.action {
            let title = format!("{} · {}", step.id, embedded.workflow);
            match self.language {
                Language::Mermaid => self.line(&format!("subgraph {id}[\"{}\"]", plain(&title))),
                Language::Dot => {
                    self.line(&format!("subgraph \"cluster_{}\" {{", plain(&step.id)));
                }
            }
            self.depth += 1;
            if self.language == Language::Dot {
                // An edge of DOT ends at a node, never at a cluster.
                self.line(&format!("label=\"{}\"; {id} [shape=point];", plain(&title)));
            }
            self.steps(&format!("{prefix}{}/", step.id), &embedded.steps);
            self.depth -= 1;
            self.line(if self.language == Language::Mermaid { "end" } else { "}" });
            return;
        }
        let label = format!("{}\n{}", step.id, action(&step.action));
        match self.language {
            Language::Mermaid => {
                let label = plain(&label).replace('\n', "<br/>");
                self.line(&format!("{id}[\"{label}\"]"));
            }
            Language::Dot => {
                let label = plain(&label).replace('\n', "\\n");
                self.line(&format!("{id} [label=\"{label}\"];"));
            }
        }
    }
}

/// A name that both languages take: step ids are `[a-z][a-z0-9_]*`.
fn name(prefix: &str, id: &str) -> String {
    format!("s_{}{id}", prefix.replace('/', "__"))
}

fn plain(text: &str) -> String {
    text.replace(['"', '\\'], "'")
}
