//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::source::{Place, SourceText};
use super::suggest;

/// How many mistakes of one file are told; the rest is counted.
const MOST: usize = 100;

/// Whether a finding keeps a workflow from being planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A stable code, such as `workflow::unknown_tool`.
    pub code: &'static str,
    /// Whether it keeps the workflow from being planned.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// The file.
    pub file: String,
    /// Where in the file, when it is somewhere.
    pub span: Option<Place>,
    /// What to do about it.
    pub help: Option<String>,
    /// The source line, with secrets masked.
    pub excerpt: String,
}

impl Diagnostic {
    /// A mistake that is nowhere in the file in particular.
    pub fn error(code: &'static str, file: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            file: file.to_owned(),
            span: None,
            help: None,
            excerpt: String::new(),
        }
    }

    /// The same mistake with advice.
    #[must_use]
    pub fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// The same mistake at a place of the file.
    #[must_use]
    pub fn at(self, source: &SourceText, place: Place) -> Self {
        Self { span: Some(place), excerpt: source.line(place.start.line).to_owned(), ..self }
    }

    /// Whether it keeps the workflow from being planned.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The mistake as JSON, for editors and scripts.
    pub fn to_json(&self) -> Value {
        json!({
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "file": self.file,
            "line": self.span.map(|place| place.start.line),
            "column": self.span.map(|place| place.start.column),
            "span": self.span,
            "help": self.help,
        })
    }

    /// The mistake for people, with colours for a terminal.
    pub fn render_coloured(&self) -> String {
        self.draw(&Paint {
            bold: "\u{1b}[1m",
            mark: "\u{1b}[1;31m",
            rule: "\u{1b}[34m",
            off: "\u{1b}[0m",
        })
    }

    fn draw(&self, paint: &Paint) -> String {
        let Paint { bold, mark, rule, off } = paint;
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let text = format!("{mark}{word}[{}]{off}{bold}: {}{off}\n", self.code, self.message);
        let Some(place) = self.span else {
            let head = format!(" {rule}-->{off} {}\n", self.file);
            return [text, head, self.advice(1, paint)].concat();
        };
        let number = place.start.line.to_string();
        let margin = " ".repeat(number.len());
        let (excerpt, before, width) = self.window(place);
        let caret = "^".repeat(width);
        let head =
            format!("{margin}{rule}-->{off} {}:{number}:{}\n", self.file, place.start.column);
        let body = format!("{margin} {rule}|{off}\n{rule}{number} |{off} {excerpt}\n");
        let foot = format!("{margin} {rule}|{off} {before}{mark}{caret}{off}\n");
        [text, head, body, foot, self.advice(number.len(), paint)].concat()
    }

    fn advice(&self, margin: usize, paint: &Paint) -> String {
        let Some(help) = &self.help else { return String::new() };
        format!("{} {}={} help: {help}\n", " ".repeat(margin), paint.rule, paint.off)
    }

    /// The part of the source line that is shown, what stands before the caret, and its width.
    fn window(&self, place: Place) -> (String, String, usize) {
        const WIDEST: usize = 160;
        let line: Vec<char> =
            self.excerpt.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
        let column = place.start.column.saturating_sub(1).min(line.len());
        let from = column.saturating_sub(WIDEST / 2);
        let shown: String = line.iter().skip(from).take(WIDEST).collect();
        let end = if place.end.line == place.start.line {
            place.end.column.saturating_sub(1)
        } else {
            line.len()
        };
        let width =
            end.saturating_sub(column).clamp(1, WIDEST.saturating_sub(column - from).max(1));
        (shown.trim_end().to_owned(), " ".repeat(column - from), width)
    }
}

struct Paint {
    bold: &'static str,
    mark: &'static str,
    rule: &'static str,
    off: &'static str,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.draw(&Paint { bold: "", mark: "", rule: "", off: "" }))
    }
}

/// A text short enough for a message.
pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain(std::iter::once('…')).collect()
}

/// Collects the mistakes of one file.
#[derive(Debug)]
pub struct Reporter {
    source: SourceText,
    found: Vec<Diagnostic>,
    secrets: Vec<String>,
}

impl Reporter {
    /// Starts with none.
    pub const fn new(source: SourceText) -> Self {
        Self { source, found: Vec::new(), secrets: Vec::new() }
    }

    /// The file.
    pub const fn source(&self) -> &SourceText {
        &self.source
    }

    /// Reports an error.
    pub fn error(&mut self, code: &'static str, place: Place, message: impl Into<String>) {
        let found = Diagnostic::error(code, self.source.path(), message).at(&self.source, place);
        self.found.push(found);
    }

    /// Reports an error and what to do about it.
    pub fn hinted(
        &mut self,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.error(code, place, message);
        self.advise(help);
    }

    /// Reports a name that is not known, with the one that was perhaps meant, or else all there are.
    pub fn unknown<'n>(
        &mut self,
        code: &'static str,
        place: Place,
        (message, name): (&str, &str),
        known: impl IntoIterator<Item = &'n str>,
    ) {
        self.error(code, place, message);
        // A file with thousands of unknown names is answered soon, too.
        let help = (self.found.len() <= MOST * 10).then(|| suggest::help(name, known)).flatten();
        if let Some(help) = help {
            self.advise(help);
        }
    }

    /// Reports something that does not keep the workflow from being planned.
    pub fn warning(
        &mut self,
        code: &'static str,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.hinted(code, place, message, help);
        if let Some(last) = self.found.last_mut() {
            last.severity = Severity::Warning;
        }
    }

    /// Takes over mistakes that were found elsewhere.
    pub fn extend(&mut self, found: impl IntoIterator<Item = Diagnostic>) {
        self.found.extend(found);
    }

    fn advise(&mut self, help: impl Into<String>) {
        if let Some(last) = self.found.last_mut() {
            last.help = Some(help.into());
        }
    }

    /// Keeps a text out of everything that is reported about this file.
    pub fn conceal(&mut self, secret: &str) {
        if !secret.trim().is_empty() {
            self.secrets.push(secret.to_owned());
        }
    }

    /// How many mistakes there are so far.
    pub const fn count(&self) -> usize {
        self.found.len()
    }

    /// Whether there is an error.
    pub fn has_errors(&self) -> bool {
        self.found.iter().any(Diagnostic::is_error)
    }

    /// The mistakes in the order of the file, each once.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
        self.found.dedup();
        let more = self.found.len().saturating_sub(MOST);
        if more > 0 {
            self.found.truncate(MOST);
            let end = self.source.place(usize::MAX, usize::MAX);
            self.error(
                "workflow::more_mistakes",
                end,
                format!("{more} more mistakes are not shown"),
            );
        }
        for found in &mut self.found {
            for secret in &self.secrets {
                conceal(found, secret);
            }
        }
        self.found
    }
}

fn conceal(found: &mut Diagnostic, secret: &str) {
    // As many stars as characters keep the caret in its place.
    let stars = "*".repeat(secret.chars().count());
    let mask = |text: &str| text.replace(secret, &stars);
    found.excerpt = mask(&found.excerpt);
    found.message = mask(&found.message);
    found.help = found.help.as_deref().map(mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reporter(text: &str) -> Reporter {
        Reporter::new(SourceText::new("w.yaml", text))
    }

    #[test]
    fn a_mistake_is_drawn_with_its_line_and_a_caret() {
        let mut reporter = reporter("version: 1\nstep: []\n");
        let place = reporter.source().place(11, 15);
        reporter.unknown(
            "workflow::unknown_key",
            place,
            ("unknown key `step`", "step"),
            ["steps", "name"],
        );
        let text = reporter.finish()[0].to_string();
        let expected = "error[workflow::unknown_key]: unknown key `step`\n --> w.yaml:2:1\n  |\n\
                        2 | step: []\n  | ^^^^\n  = help: did you mean `steps`?\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn secrets_are_concealed_everywhere() {
        let mut reporter = reporter("token: hunter22\n");
        let place = reporter.source().place(0, 5);
        reporter.error("x", place, "`hunter22` stands here");
        reporter.conceal("hunter22");
        let text = reporter.finish()[0].to_string();
        assert!(!text.contains("hunter22"), "{text}");
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let mut reporter = reporter(&"x".repeat(10_000));
        let place = reporter.source().place(5_000, 9_000);
        reporter.error("x", place, "here");
        assert!(reporter.finish()[0].to_string().lines().all(|line| line.chars().count() < 200));
    }

    #[test]
    fn hundreds_of_mistakes_are_counted() {
        let mut reporter = reporter("x");
        let place = reporter.source().place(0, 1);
        (0..500).for_each(|i| reporter.error("x", place, format!("{i}")));
        let found = reporter.finish();
        assert_eq!(found.len(), MOST + 1);
        assert_eq!(found[MOST].message, "400 more mistakes are not shown");
    }
}
