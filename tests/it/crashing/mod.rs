//! `lakeops test crash`: what it passes, what it finds, and that every shipped workflow passes it.

mod broken;
mod shapes;
mod shipped;
