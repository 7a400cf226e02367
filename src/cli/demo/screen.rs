//! What is shown while the demo runs. Plain when piped: no colour, no bars.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::postgres::{Progress, Stage};
use crate::report::Style;
use crate::report::style::Tone;

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
        self.block(text, 3);
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

/// A bar for getting and starting the server; only on a terminal.
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Nothing is shown yet.
    pub(super) fn new(wanted: bool) -> Self {
        if !wanted || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(100);
        if let Ok(style) = ProgressStyle::with_template("   {spinner} {msg} {wide_bar} {percent}%")
        {
            bar.set_style(style);
        }
        Self(Some(bar))
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a percentage between 0 and 100"
    )]
    fn report(&self, stage: Stage, fraction: Option<f64>) {
        let Some(bar) = &self.0 else { return };
        bar.set_message(stage.to_string());
        bar.set_position((fraction.unwrap_or(0.0).clamp(0.0, 1.0) * 100.0) as u64);
        bar.enable_steady_tick(Duration::from_millis(100));
    }
}
