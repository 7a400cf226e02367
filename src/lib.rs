//! `lakeops`: durable, approvable, auditable operations for Databricks Lakebase and PostgreSQL.

pub mod cli;
pub mod config;
pub mod engine;
pub mod journal;
pub mod kernel;
pub mod plan;
pub mod postgres;
pub mod report;
pub mod sop;
pub mod tools;
pub mod workflow;
