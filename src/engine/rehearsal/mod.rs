//! Rehearsals: the same change sets on throw-away branches, before they touch their target.
//!
//! Reads and scripts see the real target; SQL is carried out on a branch of it, and what that showed is
//! kept as evidence by the digest of the set. The run works against a journal of its own, which is
//! forgotten: nothing of it can be taken for something that happened. The real journal has the branches,
//! durably before each is made, and the evidence.
//!
//! [`conduct`] is the run from its start to the removal of its branches, [`stage`] the branches while it
//! works, [`trying`] one step on them, [`evidence`] what approvals ask for.

mod branches;
mod conduct;
mod evidence;
mod stage;
mod trying;

pub(super) use branches::WorkspaceRehearsals;
pub(super) use evidence::missing;
pub(super) use stage::Stage;

/// What boundaries and change keys of the branches themselves are called.
const STEP: &str = "rehearsal";

/// The code of the failure that a rehearsal which died is ended with.
const INTERRUPTED: &str = "rehearsal::interrupted";
