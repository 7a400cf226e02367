//! To come.

pub mod bench;
pub mod demo;
