//! Proves that a workflow ends the same wherever its process dies: `lakeops test crash`.
//!
//! A plan is carried out by child processes, each time on a fresh copy of the same beginning: twice
//! undisturbed, then once for each boundary with a SIGKILL exactly there, and once more with a second one
//! while the first is recovered from. What is left of each run is compared with what the undisturbed
//! ones left.
//!
//! [`conduct()`] is the whole test and [`trial`] one run of it; [`Ground`] makes the copies ([`branched`]: of a
//! workspace, [`copied`]: of a database), [`worker`] is what a child process does, and [`fence`] keeps it from
//! everything but its copy. [`boundary`], [`snapshot`] and [`report`] think and do not act.

pub mod boundary;
pub mod branched;
mod capture;
pub mod conduct;
pub mod copied;
mod effects;
pub mod fence;
mod ground;
pub mod report;
pub mod snapshot;
pub mod trial;
pub mod worker;

pub use boundary::Boundary;
pub use conduct::{CrashError, Progress, Test, conduct};
pub use fence::Fence;
pub use ground::{Ground, Place, Tools};
pub use report::Report;
pub use trial::Launcher;

use crate::kernel::SqlFile;
use crate::sql_file;

const TABLES: SqlFile = sql_file!("crash/tables");
const DATABASES: SqlFile = sql_file!("crash/databases");
