//! The documented limits of the service.

use std::time::Duration;

/// Projects of a workspace.
pub(super) const PROJECTS: usize = 1000;
/// Branches of a project, archived ones included.
pub(super) const BRANCHES: usize = 500;
/// Branches of a project that are not archived.
pub(super) const UNARCHIVED: usize = 10;
/// Branches of a project without a parent.
pub(super) const ROOTS: usize = 3;
/// Protected branches of a project.
pub(super) const PROTECTED: usize = 1;
/// Roles of a branch.
pub(super) const ROLES: usize = 500;
/// Databases of a branch.
pub(super) const DATABASES: usize = 500;
/// Endpoints of a project that are awake at a time.
pub(super) const ACTIVE: usize = 20;
/// Snapshots of a project.
pub(super) const SNAPSHOTS: usize = 10;
/// What a branch may hold, in bytes: 8 TB.
pub(super) const LOGICAL_SIZE: u64 = 8_796_093_022_208;
/// The most that a branch can be made to live.
pub(super) const LONGEST_TTL: Duration = Duration::from_hours(30 * 24);
/// How long what is deleted can come back. Documentation gives no number; a week is an assumption.
pub(super) const UNDELETE: Duration = Duration::from_hours(7 * 24);
/// By how many compute units the limits of an endpoint may differ.
pub(super) const SPREAD: f64 = 16.0;

/// How many clients a compute of this size takes: that of the next documented size.
pub(super) fn max_connections(max_cu: f64) -> u32 {
    const SIZES: &[(f64, u32)] = &[(0.5, 104), (1.0, 209), (4.0, 839), (8.0, 1678), (16.0, 3357)];
    let next = SIZES.iter().find(|(units, _)| max_cu <= *units);
    next.map_or(4000, |(_, connections)| *connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_their_connections() {
        for (units, connections) in [(0.5, 104), (1.0, 209), (3.0, 839), (16.0, 3357), (40.0, 4000)]
        {
            assert_eq!(max_connections(units), connections);
        }
    }
}
