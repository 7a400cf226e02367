//! A bar on terminals while the local PostgreSQL is fetched and started.

use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;
use crate::postgres::{Progress, Stage};

/// A bar on a terminal; nothing elsewhere.
pub struct Bar {
    bar: Option<ProgressBar>,
    stage: Mutex<Option<Stage>>,
}

impl Bar {
    /// A bar, where a person watches.
    pub fn new(out: &Output) -> Self {
        let bar = out.is_watched().then(ProgressBar::new_spinner);
        Self { bar, stage: Mutex::new(None) }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Progress for Bar {
    fn report(&self, stage: Stage, fraction: Option<f64>) {
        let mut known = self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_new = known.replace(stage) != Some(stage);
        drop(known);
        let Some(bar) = &self.bar else {
            if is_new {
                tracing::info!(%stage, "local PostgreSQL");
            }
            return;
        };
        let template = match fraction {
            Some(_) => "{spinner} {msg} [{bar:30}] {percent}%",
            None => "{spinner} {msg}",
        };
        if is_new {
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(stage.to_string());
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        if let Some(fraction) = fraction {
            bar.set_length(1000);
            // A fraction from 0 to 1 in thousandths.
            let thousandths = (fraction.clamp(0.0, 1.0) * 1000.0).round();
            bar.set_position(format!("{thousandths}").parse().unwrap_or(0));
        }
    }
}
