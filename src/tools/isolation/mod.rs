//! Keeping tenants apart by row level security.
//!
//! [`request`] says what is wanted, [`survey`] looks at what is there, [`change`] makes what is missing,
//! [`proof`] tries it as two tenants.

pub(super) mod change;
pub(super) mod proof;
pub(super) mod request;
pub(super) mod survey;
