//! Branches of Lakebase projects: what the provisioning tools share.
//!
//! Names and patterns are pure. [`survey`] reads a project once; [`policy`] asks the branch policy;
//! [`capacity`] compares with the platform's limits; [`change`] writes the changes. Nothing here sends
//! anything but GET.

pub(super) mod capacity;
pub(super) mod change;
pub(super) mod lifecycle;
pub(super) mod making;
pub(super) mod name;
pub(super) mod pattern;
pub(super) mod place;
pub(super) mod policy;
pub(super) mod project;
pub(super) mod removing;
pub(super) mod reset;
pub(super) mod survey;
pub(super) mod throw_away;

#[cfg(test)]
pub(super) mod proposals;
