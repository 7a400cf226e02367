//! Pure logic that several tools share. Nothing here talks to a server.

pub mod alert;
pub mod autovacuum;
pub mod bloat;
pub mod counters;
mod destruction;
pub mod duplicate_indexes;
pub mod foreign_keys;
pub mod index;
pub mod index_bloat;
pub mod index_usage;
pub mod level;
pub mod locks;
pub mod metric;
pub mod missing;
pub mod number;
pub mod rates;
pub mod recommendation;
pub mod statement;
pub mod text;
pub mod vacuum;
pub mod wraparound;
