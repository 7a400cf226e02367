//! Numbers with their unit and their level, and what could not be measured.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::level::{Level, level_of};
use super::missing::NotMeasured;
use super::number::rounded;
use crate::config::Settings;

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Metric {
    /// The number; absent when it could not be measured.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: Unit,
    /// How bad it is.
    pub level: Level,
    /// What it belongs to, such as the worst table.
    pub detail: Option<String>,
}

/// The unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A share from 0 to 1.
    Ratio,
    /// A count.
    Count,
    /// Seconds.
    Seconds,
    /// Transactions.
    Transactions,
    /// Bytes.
    Bytes,
    /// A count in an hour.
    PerHour,
    /// A count in a second.
    PerSecond,
    /// Bytes in a second.
    BytesPerSecond,
}

/// The metrics as they come together.
pub struct Board<'a> {
    settings: &'a Settings,
    /// Every metric by name.
    pub metrics: BTreeMap<String, Metric>,
    /// What could not be measured.
    pub not_measured: Vec<NotMeasured>,
}

impl<'a> Board<'a> {
    /// An empty board; levels come from the settings' thresholds.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, metrics: BTreeMap::new(), not_measured: Vec::new() }
    }

    /// A metric with its level.
    pub fn put(&mut self, name: &str, unit: Unit, value: f64) {
        self.put_with(name, unit, value, None);
    }

    /// The same, with what it belongs to.
    pub fn put_with(&mut self, name: &str, unit: Unit, value: f64, detail: Option<String>) {
        let level = level_of(self.settings, name, value);
        let metric = Metric { value: Some(rounded(value)), unit, level, detail };
        self.metrics.insert(name.to_owned(), metric);
    }

    /// A metric that could not be measured.
    pub fn missing(&mut self, name: &str, unit: Unit, missing: NotMeasured) {
        let detail = Some(missing.why.clone());
        let metric = Metric { value: None, unit, level: Level::NotMeasured, detail };
        self.metrics.insert(name.to_owned(), metric);
        self.not_measured.push(missing);
    }

    /// The value, or why there is none.
    pub fn put_or(&mut self, name: &str, unit: Unit, value: Option<f64>, why: &str) {
        match value {
            Some(value) => self.put(name, unit, value),
            None => self.missing(name, unit, NotMeasured::new(name, why)),
        }
    }
}
