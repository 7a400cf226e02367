//! Positions in the WAL, and the files that hold them.

use std::fmt;

/// The size of a WAL file: the smallest there is, so that little is lost and little is copied.
const SEGMENT: u64 = 1 << 20;

/// A position in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lsn(pub(super) u64);

impl Lsn {
    /// Reads `0/1A2B3C8`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |text: &str| {
            let digits = (1..=8).contains(&text.len())
                && text.bytes().all(|digit| digit.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        Some(Self(part(high)? << 32 | part(low)?))
    }

    /// The name of the WAL file that holds this position on a timeline (its eight digits).
    pub(super) fn file(self, timeline: &str) -> String {
        format!("{timeline}{:08X}{:08X}", self.0 >> 32, (self.0 & 0xffff_ffff) / SEGMENT)
    }

    /// The position where the file before the next one ends.
    pub(super) fn next_file(self) -> Self {
        Self((self.0 / SEGMENT + 1).saturating_mul(SEGMENT))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The names of the WAL files from one position to another; the last one holds the byte before `to`.
pub(super) fn files(timeline: &str, from: Lsn, to: Lsn) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = Lsn(from.0 / SEGMENT * SEGMENT);
    while at < to {
        names.push(at.file(timeline));
        at = at.next_file();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip() {
        for text in ["0/0", "0/1A2B3C8", "1F/FFFFFFFF"] {
            assert_eq!(Lsn::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "0", "0/", "/0", "x/1", "0/123456789", "+1/2", "0/-1"] {
            assert_eq!(Lsn::parse(text), None, "{text}");
        }
    }

    #[test]
    fn files_cover_the_range() {
        let at = |text| Lsn::parse(text).unwrap();
        assert_eq!(files("00000001", at("0/200028"), at("0/200138")), ["000000010000000000000002"]);
        // The end of a file is not in the next one.
        assert_eq!(files("00000001", at("0/2FFFFF"), at("0/300000")).len(), 1);
        assert_eq!(
            files("00000002", at("0/FFF00000"), at("1/1")),
            ["000000020000000000000FFF", "000000020000000100000000"]
        );
    }
}
