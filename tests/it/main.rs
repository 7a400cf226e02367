//! The one integration binary: one module per area.

#[cfg(test)]
mod registry;
