//! Settings: built-in defaults, `.config/lakeops.toml`, `LAKEOPS_*`, flags; the later wins.
//!
//! Start with [`Settings`]: what the rest of the program is given.

pub mod settings;

pub use settings::Settings;
