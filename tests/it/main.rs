//! The one integration binary: one module per area.

#[cfg(test)]
mod harness;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod registry;
