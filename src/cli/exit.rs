//! How the process ends: the exit codes, and what leads to each.

use std::process::ExitCode;

use crate::journal::Outcome;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed: a run, a check, a test of an SOP.
    Failed,
    /// The input or the usage is invalid.
    Invalid,
    /// A run waits for an approval.
    WaitingApproval,
    /// A run was cancelled.
    Cancelled,
    /// The environment lacks something: a server, a file, space.
    Environment,
    /// A run is stuck, or in doubt about a change.
    Stuck,
    /// Interrupted from the keyboard; a run is parked and can be resumed.
    Interrupted,
}

/// The list of codes as `--help` prints it.
pub const CODES: &str = "\
Exit codes:
  0    done
  1    failed
  2    invalid input or usage
  3    waiting for approval
  4    cancelled
  5    the environment lacks something
  6    stuck or in doubt: a person must act
  130  interrupted";

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::WaitingApproval => 3,
            Self::Cancelled => 4,
            Self::Environment => 5,
            Self::Stuck => 6,
            Self::Interrupted => 130,
        }
    }

    /// How a command ends that left a run in this state. A run that waits for a time is done for now.
    pub const fn of_outcome(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Succeeded | Outcome::Waiting | Outcome::Running => Self::Done,
            Outcome::Failed => Self::Failed,
            Outcome::WaitingApproval => Self::WaitingApproval,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::InDoubt | Outcome::Stuck => Self::Stuck,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_every_code() {
        for exit in [
            Exit::Done,
            Exit::Failed,
            Exit::Invalid,
            Exit::WaitingApproval,
            Exit::Cancelled,
            Exit::Environment,
            Exit::Stuck,
            Exit::Interrupted,
        ] {
            let line = format!("\n  {:<5}", exit.code());
            assert!(CODES.contains(line.trim_end_matches('\n')), "{exit:?}");
        }
    }
}
