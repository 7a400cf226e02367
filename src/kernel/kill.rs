//! Named boundaries at which a test can kill the process.
//!
//! A boundary is `<step[key]>/<change>/<phase>`, such as `heal[orders]/do 0/before effect`. Boundaries
//! are in every build; only `lakeops test crash` and the tests arm one, in a child process.

/// Told of every boundary that the process reaches.
pub trait KillPoints: Send + Sync {
    /// The process is at this boundary now. An armed implementation does not return.
    fn reach(&self, boundary: &str);

    /// Whether anybody listens: else a name that costs something to make need not be made.
    fn listens(&self) -> bool {
        true
    }
}

/// Never kills.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unarmed;

impl KillPoints for Unarmed {
    fn reach(&self, _boundary: &str) {}

    fn listens(&self) -> bool {
        false
    }
}
