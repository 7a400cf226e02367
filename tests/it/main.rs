//! The one integration binary: one module per area.

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod config;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod report;
#[cfg(test)]
mod workflow;
