//! How much of a table is neither live rows nor the room that its fillfactor leaves, estimated from
//! statistics: no page is read.

/// The header of a page.
const PAGE_HEADER: f64 = 24.0;
/// The header of a row without its null bitmap, and its line pointer.
const ROW_HEADER: f64 = 23.0;
const LINE_POINTER: f64 = 4.0;
/// Rows begin at multiples of this.
const ALIGNMENT: f64 = 8.0;

/// What the estimate needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heap {
    /// Bytes of the heap.
    pub bytes: u64,
    /// Bytes of a page.
    pub block_size: u32,
    /// Live rows.
    pub rows: f64,
    /// The average bytes of a row's values.
    pub width: f64,
    /// Columns.
    pub columns: u32,
    /// Whether any value is null: rows then carry a bitmap.
    pub has_nulls: bool,
    /// How full pages are made, in percent.
    pub fillfactor: f64,
}

/// Bloat of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bloat {
    /// Bytes that a rewrite would give back.
    pub bytes: u64,
    /// The same as a share of the heap.
    pub ratio: f64,
}

/// Estimates the bloat of a heap.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; the result is between 0 and the heap's own size"
)]
pub fn estimate(heap: &Heap) -> Bloat {
    if heap.bytes == 0 {
        return Bloat { bytes: 0, ratio: 0.0 };
    }
    let bitmap = if heap.has_nulls { (f64::from(heap.columns) + 7.0).div_euclid(8.0) } else { 0.0 };
    let row = LINE_POINTER + aligned(ROW_HEADER + bitmap) + aligned(heap.width);
    let page = f64::from(heap.block_size);
    let rows_of_page = ((page - PAGE_HEADER) * heap.fillfactor / 100.0 / row).floor().max(1.0);
    let needed = (heap.rows.max(0.0) / rows_of_page).ceil() * page;
    let size = heap.bytes as f64;
    let bytes = (size - needed).clamp(0.0, size);
    Bloat { bytes: bytes as u64, ratio: bytes / size }
}

fn aligned(bytes: f64) -> f64 {
    (bytes / ALIGNMENT).ceil() * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 50,000 rows of an int4, a 101-byte text and a null: 863 pages, measured on a server.
    const FULL: Heap = Heap {
        bytes: 7_069_696,
        block_size: 8192,
        rows: 50_000.0,
        width: 105.0,
        columns: 3,
        has_nulls: true,
        fillfactor: 100.0,
    };

    #[test]
    fn a_table_without_dead_rows_has_no_bloat() {
        assert!(estimate(&FULL).ratio < 0.03, "{:?}", estimate(&FULL));
    }

    #[test]
    fn what_two_thirds_of_the_rows_left_behind() {
        let bloat = estimate(&Heap { rows: 16_666.0, ..FULL });
        assert!((bloat.ratio - 0.667).abs() < 0.03, "{bloat:?}");
    }

    #[test]
    fn the_room_of_the_fillfactor_is_no_bloat() {
        let roomy = Heap { fillfactor: 70.0, bytes: 10_100_736, ..FULL };
        assert!(estimate(&roomy).ratio < 0.05, "{:?}", estimate(&roomy));
        assert!(estimate(&Heap { fillfactor: 100.0, ..roomy }).ratio > 0.25);
    }

    #[test]
    fn nonsense_stays_between_nothing_and_all() {
        for rows in [-1.0, 0.0, 1e18, f64::INFINITY] {
            let bloat = estimate(&Heap { rows, ..FULL });
            assert!((0.0..=1.0).contains(&bloat.ratio), "{rows}: {bloat:?}");
        }
        assert_eq!(estimate(&Heap { bytes: 0, ..FULL }).bytes, 0);
        assert!(estimate(&Heap { width: 1e9, ..FULL }).ratio <= 1.0);
    }
}
