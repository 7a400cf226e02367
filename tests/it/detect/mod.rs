//! What the detectors find in a database full of traps: all that is there and nothing else.

mod bench;
mod indexes;
mod missing;
mod slow;
mod tuning;
mod versions;
mod wraparound;
