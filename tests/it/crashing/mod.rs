//! `lakeops test crash`: what it passes, and what it finds. Every shipped workflow that can run by itself goes
//! through it too, on demand: that takes hours.

mod broken;
mod shapes;
mod shipped;
