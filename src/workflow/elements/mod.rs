//! The elements of a workflow file, one file each: what can be written, and how it is read.

pub mod approval;
pub mod call;
pub mod for_each;
pub mod limits;
pub mod param;
pub mod registration;
pub mod retry;
pub mod schedule;
pub mod setting;
pub mod step;
pub mod trigger;
pub mod verify;
pub mod wait;

pub use approval::ApprovalSpec;
pub use call::CallSpec;
pub use for_each::ForEachSpec;
pub use limits::{DefaultsSpec, LimitsSpec};
pub use param::{ParamSpec, ParamType};
pub use registration::RegistrationSpec;
pub use retry::RetrySpec;
pub use schedule::{CatchUp, Overlap, ScheduleSpec};
pub use setting::{Computed, Quantity, Setting};
pub use step::{StepKind, StepSpec};
pub use trigger::TriggerSpec;
pub use verify::VerifySpec;
pub use wait::WaitSpec;
