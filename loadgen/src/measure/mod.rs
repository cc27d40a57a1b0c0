//! Measurements of whole engines: each starts `highwater` on CPUs of its own, loads it from another, and
//! verifies its lists.
//!
//! Not a test; figures are of this machine at this time. Invariant: no figure is told of a load that was not
//! acknowledged in full, or of an engine whose lists were wrong.

mod compare;
mod growth;
mod knee;
mod page;
mod session;
mod sweep;

pub use compare::{CompareArgs, compare};
pub use growth::{GrowthArgs, growth};
pub use session::{BATCH_VIEWS, LoadArgs, Stage};
pub use sweep::{SweepArgs, sweep};

/// The middle of values that ascend; of an even number of them, half-way between the middle two.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[middle - 1], sorted[middle]) } else { sorted[middle] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_its_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]).to_bits(), 3.0_f64.to_bits());
        assert_eq!(median(&[5.0]).to_bits(), 5.0_f64.to_bits());
    }
}
