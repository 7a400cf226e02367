//! `lakeops`: durable, approvable, auditable operations for Databricks Lakebase and PostgreSQL.
//!
#![doc = include_str!("ARCHITECTURE.md")]

pub mod alert;
pub mod cli;
pub mod config;
pub mod crash;
pub mod emulator;
pub mod engine;
pub mod export;
pub mod history;
pub mod journal;
pub mod kernel;
pub mod lakebase;
pub mod model;
pub mod plan;
pub mod postgres;
pub mod report;

pub mod schedule;
pub mod schema;
pub mod server;
pub mod sop;
pub mod tools;
pub mod workflow;

#[doc = include_str!("GLOSSARY.md")]
pub mod glossary {}

#[doc = include_str!("CHANGELOG.md")]
pub mod changelog {}
