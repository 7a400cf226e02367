//! Identifiers, and the source that fresh ones and random draws come from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The identifier of a run: 16 lower-case hexadecimal digits. A unique prefix is enough to name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// Takes a stored text as a run identifier.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 digits: enough to tell two apart, and for a name that is to be short.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where fresh identifiers and random draws come from, so that tests can repeat them.
pub trait IdSource: Send + Sync {
    /// A run identifier that was never handed out before.
    fn run_id(&self) -> RunId;
    /// A draw from `[0, 1)`, for jitter. What matters of it is journaled by its user.
    fn draw(&self) -> f64;
}

/// Identifiers from the operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomIds;

#[expect(clippy::disallowed_methods, reason = "the one real source of randomness of the program")]
impl IdSource for RandomIds {
    fn run_id(&self) -> RunId {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // A version-4 UUID has six fixed bits; folding the halves leaves 64 random ones.
        RunId(format!("{:016x}", high ^ low.rotate_left(7)))
    }

    fn draw(&self) -> f64 {
        let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
        let bits = u32::try_from(low & 0xffff_ffff).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_have_their_form() {
        let id = RandomIds.run_id();
        assert_eq!(id.as_str().len(), 16);
        assert_ne!(id, RandomIds.run_id());
        let draw = RandomIds.draw();
        assert!((0.0..1.0).contains(&draw));
    }
}
