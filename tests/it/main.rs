//! The one integration binary: one module per area.

#[cfg(test)]
mod apply;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod archive;
#[cfg(test)]
mod ask;
#[cfg(test)]
mod backtest;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod collection;
#[cfg(test)]
mod config;
#[cfg(test)]
mod crashing;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod detect;
#[cfg(test)]
mod emulator;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod history;
#[cfg(test)]
mod incidents;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod lakebase;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod proofs;
#[cfg(test)]
mod reader;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod report;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod sop;
#[cfg(test)]
mod sql;
#[cfg(test)]
mod structure;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod workflow;
#[cfg(test)]
mod workflows;
