//! stdout is data, stderr is everything else; and no known secret gets out on either.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use super::error::CliError;
use crate::config::Environment;
use crate::kernel::Redactor;
use crate::report::Style;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs: one object, or an array for lists
    Json,
    /// For spreadsheets: only `audit` and `history query` can
    Csv,
}

/// The two streams of the process.
#[derive(Clone, Debug)]
pub struct Output {
    format: Format,
    out: Style,
    err: Style,
    is_quiet: bool,
    is_watched: bool,
    redactor: Redactor,
}

impl Output {
    /// The real streams, as the environment wants them.
    pub fn new(
        environment: &dyn Environment,
        format: Format,
        is_quiet: bool,
        redactor: Redactor,
    ) -> Self {
        let is_plain = environment.var("NO_COLOR").is_some()
            || environment.var("TERM").is_some_and(|terminal| terminal == "dumb");
        let (out, err) = (std::io::stdout().is_terminal(), std::io::stderr().is_terminal());
        let width = comfy_table::Table::new().width().map_or(100, usize::from).max(60);
        let style = |is_terminal: bool| Style {
            color: is_terminal && !is_plain,
            width: if is_terminal { width } else { 160 },
        };
        Self {
            format,
            out: style(out),
            err: style(err),
            is_quiet,
            is_watched: err && !is_quiet,
            redactor,
        }
    }

    /// How data is printed.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// How messages may look.
    pub const fn message_style(&self) -> Style {
        self.err
    }

    /// How data may look.
    pub const fn data_style(&self) -> Style {
        self.out
    }

    /// Whether a person watches stderr, so that progress is worth showing.
    pub const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// What masks secrets.
    pub const fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Prints data in the wanted form.
    pub fn data<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(Style) -> String,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Text => self.text(&text(self.out)),
            Format::Json => self.json(value),
            Format::Csv => Err(CliError::usage_with(
                "only `audit` and `history query` print CSV",
                "use `--output text` or `--output json`",
            )),
        }
    }

    /// Prints data as text, whatever form is wanted.
    pub fn text(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(self.redactor.mask(text).as_bytes());
        written.and_then(|()| stdout.flush()).map_err(CliError::Output)
    }

    fn json<T: Serialize + ?Sized>(&self, value: &T) -> Result<(), CliError> {
        let as_io = |error: serde_json::Error| CliError::Output(error.into());
        let mut value = serde_json::to_value(value).map_err(as_io)?;
        self.redactor.mask_json(&mut value);
        let mut text = serde_json::to_string_pretty(&value).map_err(as_io)?;
        text.push('\n');
        self.text(&text)
    }

    /// Tells a person something beside the data, unless `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.is_quiet {
            self.error(&format!("{}\n", text.trim_end()));
        }
    }

    /// Tells a person something, come what may.
    pub fn error(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        // There is nobody left to be told that stderr is gone.
        drop(stderr.write_all(self.redactor.mask(text).as_bytes()));
    }
}
