//! Pure logic that several tools share. Nothing here talks to a server.

pub mod bloat;
mod destruction;
pub mod level;
pub mod locks;
pub mod metric;
pub mod missing;
pub mod number;
pub mod rates;
pub mod statement;
pub mod text;
pub mod vacuum;
