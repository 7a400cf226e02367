//! How bad a measured number is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::config::settings::Threshold;

/// How bad a measured number is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It could not be measured.
    NotMeasured,
    /// It is as it should be, or nothing says what it should be.
    Normal,
    /// Someone should look.
    Warning,
    /// Someone must act.
    Critical,
}

/// The level of a value. A number must be beyond its threshold, not at it; a critical threshold below
/// the warning one means that less is worse.
pub fn level(value: f64, threshold: Threshold) -> Level {
    let less_is_worse = threshold.critical < threshold.warning;
    let beyond = |limit: f64| if less_is_worse { value < limit } else { value > limit };
    if beyond(threshold.critical) {
        Level::Critical
    } else if beyond(threshold.warning) {
        Level::Warning
    } else {
        Level::Normal
    }
}

/// The level of a metric under the configured thresholds; normal when none is configured.
pub fn level_of(settings: &Settings, metric: &str, value: f64) -> Level {
    settings.thresholds.get(metric).map_or(Level::Normal, |threshold| level(value, *threshold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_on_both_sides() {
        let settings = Settings::default();
        let more = |value| level_of(&settings, "connection_utilization", value);
        assert_eq!(
            [more(0.70), more(0.71), more(0.85), more(0.86)],
            [Level::Normal, Level::Warning, Level::Warning, Level::Critical]
        );
        let less = |value| level_of(&settings, "cache_hit_ratio", value);
        assert_eq!(
            [less(0.99), less(0.98), less(0.95), less(0.94)],
            [Level::Normal, Level::Warning, Level::Warning, Level::Critical]
        );
        assert_eq!(level_of(&settings, "unheard_of", 1e9), Level::Normal);
    }
}
