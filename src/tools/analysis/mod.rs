//! Pure logic that several tools share. Nothing here talks to a server.

mod destruction;
pub mod level;
pub mod locks;
pub mod number;
pub mod statement;
pub mod text;
