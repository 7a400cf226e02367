//! What is shown while the demo runs. Plain when piped: no colour, no bars.

use std::io::Write;

use crate::report::Style;
use crate::report::style::Tone;
use crate::report::table::table;

/// How far the story stands to the right of its headings.
const INDENT: usize = 3;

/// Where the story is told.
pub struct Screen {
    out: Box<dyn Write + Send>,
    /// How a text may look.
    pub style: Style,
}

impl Screen {
    /// Tells to `out`.
    pub fn new(out: Box<dyn Write + Send>, style: Style) -> Self {
        Self { out, style }
    }

    /// Tells nobody: with `--output json` only the report is printed.
    pub fn silent() -> Self {
        Self::new(Box::new(std::io::sink()), Style::PLAIN)
    }

    /// A line.
    pub(super) fn line(&mut self, text: &str) {
        // Whoever reads may have gone; the demo ends in order all the same.
        drop(writeln!(self.out, "{}", text.trim_end()));
        drop(self.out.flush());
    }

    /// The heading of an act.
    pub(super) fn act(&mut self, number: usize, title: &str) {
        let title = self.style.paint(Tone::Strong, &format!("{number}  {title}"));
        self.line("");
        self.line(&title);
    }

    /// Something that the story says.
    pub(super) fn say(&mut self, text: &str) {
        self.block(text, INDENT);
    }

    /// Lines, moved to the right.
    pub(super) fn block(&mut self, text: &str, indent: usize) {
        for line in text.lines() {
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    /// Less important lines.
    pub(super) fn faint(&mut self, text: &str) {
        let style = self.style;
        for line in text.lines() {
            self.line(&format!("   {}", style.paint(Tone::Faint, line)));
        }
    }

    /// A table.
    pub(super) fn table(&mut self, headings: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
        let width = self.style.width.saturating_sub(INDENT);
        let style = Style { width, ..self.style };
        self.block(&table(style, headings, rows, nothing), INDENT);
    }

    /// A command line that is being run.
    pub(super) fn command(&mut self, args: &[String]) {
        let words: Vec<String> = args.iter().map(|arg| quoted(arg)).collect();
        let text = format!("$ lakeops {}", words.join(" "));
        let text = self.style.paint(Tone::Strong, &text);
        self.line(&format!("   {text}"));
    }
}

fn quoted(arg: &str) -> String {
    if arg.contains(' ') { format!("\"{arg}\"") } else { arg.to_owned() }
}
