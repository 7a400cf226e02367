//! Numbers as they are shown and compared.

/// A share of a whole from 0 to 1; 0 of nothing is 0.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "nothing that is counted here comes near 2^52")]
pub const fn as_f64(count: usize) -> f64 {
    count as f64
}

/// A number with three digits after the point: enough for people, and equal runs give equal text.
pub fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_nothing() {
        assert!(share(1, 0).abs() < f64::EPSILON);
        assert!((share(1, 4) - 0.25).abs() < f64::EPSILON);
        assert!((rounded(1.234_56) - 1.235).abs() < f64::EPSILON);
    }
}
