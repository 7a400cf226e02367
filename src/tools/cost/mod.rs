//! What computes and storage cost: rows of the billing tables, and what follows from them.

mod attribution;
mod usage;

pub(in crate::tools) use attribution::{Amount, Anomaly, Part, Unjudged, anomalies, parts, total};
pub(in crate::tools) use usage::{Line, Names, Period, Reading};
