//! What people and programs are shown of runs, plans, changes and audits. PURE.
//!
//! Reports never write and never decide: they turn entries and plans into text, and into the JSON that
//! `--output json` prints. Start with [`view::RunView`]; [`style::Style`] says how a text may look.

pub mod answer;
pub mod approvals;
pub mod audit;
pub mod backtest;
pub mod changes;
pub mod chart;
pub mod explain;
pub mod fold;
pub mod graph;
pub mod operations;
pub mod plan;
pub mod rehearsal;
pub mod run;
pub mod sealed;
pub mod style;
pub mod table;
pub mod timeline;
pub mod tools;
pub mod view;

pub use style::Style;
pub use view::RunView;
