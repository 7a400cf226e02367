//! Logs: on stderr, as text or JSON, with secrets masked.

use std::io::{IsTerminal as _, Write};

use clap::ValueEnum;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::error::CliError;
use super::telemetry::{self, Traces};
use crate::config::Environment;
use crate::kernel::Redactor;

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// For programs: one object per line
    Json,
}

/// Starts logging, and sending traces where that is built in and wanted. `LAKEOPS_LOG` (`debug`,
/// `lakeops::engine=trace`, …) is stronger than the flags.
pub(super) fn start(
    environment: &dyn Environment,
    format: LogFormat,
    (verbose, is_quiet): (u8, bool),
    redactor: &Redactor,
) -> Result<Traces, CliError> {
    let level = match (is_quiet, verbose) {
        // The kernel of Delta reports every probe for a table that is not there as an error.
        (true, _) => "error,buoyant_kernel=off",
        (false, 0) => "warn,buoyant_kernel=off",
        (false, 1) => "lakeops=info,warn,buoyant_kernel=off",
        (false, 2) => "lakeops=debug,info",
        (false, _) => "trace",
    };
    let wanted = environment.var("LAKEOPS_LOG");
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(level))
        .map_err(|error| CliError::usage(format!("`LAKEOPS_LOG` is no filter of logs: {error}")))?;
    let is_plain = environment.var("NO_COLOR").is_some() || !std::io::stderr().is_terminal();
    let lines = fmt::layer().with_ansi(!is_plain).with_writer(Masked(redactor.clone()));
    let lines = match format {
        LogFormat::Text => lines.with_target(false).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().with_filter(filter).boxed(),
    };
    let (spans, traces) = telemetry::start(environment)?;
    let layers: Vec<_> = std::iter::once(lines).chain(spans).collect();
    // A second start (in tests) leaves the first one in place.
    let _started = tracing_subscriber::registry().with(layers).try_init();
    Ok(traces)
}

/// stderr without secrets.
#[derive(Clone, Debug)]
struct Masked(Redactor);

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Masked {
    /// One call is one whole event.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = self.0.mask(&String::from_utf8_lossy(bytes));
        std::io::stderr().lock().write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}
