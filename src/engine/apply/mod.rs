//! Carries single changes out: one applier per kind of change, none per tool.
//!
//! An applier is told everything by its [`ApplyContext`]; it never sees the journal. It promises that a
//! change happens at most once per key, that a failure says whether the effect may have happened
//! (`InDoubt`), and that [`Applier::recover`] finds out as much as can be found out afterwards.
//! Start with [`Applier`], then `sql`.

mod api;
mod applier;
mod archive;
mod command;
mod experiment;
mod file;
mod from_archive;
mod history;
mod http;
mod index_probe;
mod lasting;
mod look;
mod notification;
mod orphan;
mod publish;
mod setup;
mod sql;
mod sql_probe;
mod witness;

pub use api::ApiApplier;
pub use applier::{
    APPLY_SQL, Applied, Applier, Appliers, ApplyContext, ChangeKey, NoNotes, NoSecrets, Notes,
    Recovered, SecretSource,
};
pub use command::CommandApplier;
pub use experiment::ExperimentApplier;
pub use file::FileApplier;
pub use http::HttpApplier;
pub(in crate::engine) use lasting::keeps_session;
pub use notification::NotificationApplier;
pub(in crate::engine) use notification::ROUTES;
pub use publish::PublishApplier;
pub use setup::{is_set_up, setup_changes};
pub(in crate::engine) use sql::Begun;
pub use sql::SqlApplier;
pub use witness::Witness;
