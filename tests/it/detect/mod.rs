//! What the detectors find in a database full of traps: all that is there and nothing else.

mod bench;
mod indexes;
mod tuning;
mod wraparound;
