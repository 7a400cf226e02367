//! Migrations: files of SQL that are carried out once each, in the order of their versions.
//!
//! [`source`] finds the files, [`reading`] cuts one into statements, [`class`] says what each does to
//! whoever works with the database, [`lint`] what a reviewer would say, [`history`] compares with what
//! the database has already, [`change`] makes changes of what is pending. [`look`] does all of the
//! looking for the tools.

pub(super) mod change;
pub(super) mod class;
pub(super) mod history;
pub(super) mod lint;
pub(super) mod look;
pub(super) mod reading;
pub(super) mod size;
pub(super) mod source;
pub(super) mod version;
