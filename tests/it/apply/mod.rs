//! Appliers on a real server: exactly once, or a clear word on why not.

mod elsewhere;
mod kept;
mod outside;
pub(crate) mod proxy;
mod transactional;
mod world;
