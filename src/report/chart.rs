//! One series of numbers over time, in characters. PURE.

use super::Style;
use super::style::Tone;
use crate::kernel::Timestamp;

const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How high a chart is, in lines.
const HEIGHT: u16 = 10;

/// A measured value.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// How much.
    pub value: f64,
}

/// Draws points, each column the mean of what falls into it. Where nothing was measured, nothing is drawn.
/// The scale begins at zero unless the values are far from it.
pub fn chart(style: Style, points: &[Point]) -> String {
    let finite = |point: &&Point| point.value.is_finite();
    let points: Vec<Point> = points.iter().filter(finite).copied().collect();
    let ends = (points.iter().map(|p| p.at).min(), points.iter().map(|p| p.at).max());
    let (Some(first), Some(last)) = ends else { return "nothing was measured\n".to_owned() };
    let lowest = points.iter().map(|point| point.value).fold(f64::INFINITY, f64::min);
    let highest = points.iter().map(|point| point.value).fold(f64::NEG_INFINITY, f64::max);
    let floor = if lowest >= 0.0 && lowest <= highest / 2.0 { 0.0 } else { lowest };
    let labels = [number(highest), number(f64::midpoint(floor, highest)), number(floor)];
    let margin = labels.iter().map(|label| label.chars().count()).max().unwrap_or(0);
    let width = style.width.saturating_sub(margin + 3).clamp(10, 120);
    let columns = columns(&points, (first, last), width);
    let span = highest - floor;
    let steps = u32::from(HEIGHT) * 8;
    // What was measured shows, however little it is.
    let level = |mean: f64| {
        let share = if span > 0.0 { (mean - floor) / span } else { 1.0 };
        whole(share * f64::from(steps)).clamp(1, steps)
    };
    let levels: Vec<Option<u32>> = columns.into_iter().map(|mean| mean.map(level)).collect();
    let mut text = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            0 => &labels[2],
            _ if row == HEIGHT - 1 => &labels[0],
            _ if row == HEIGHT / 2 => &labels[1],
            _ => "",
        };
        let below = u32::from(row) * 8;
        let cell = |level: &Option<u32>| {
            let filled = level.map_or(0, |level| level.saturating_sub(below).min(8));
            EIGHTHS.get(usize::try_from(filled).unwrap_or(0)).copied().unwrap_or(' ')
        };
        let line: String = levels.iter().map(cell).collect();
        let padded = format!("{label:>margin$} ┤");
        text.push_str(&style.paint(Tone::Faint, &padded));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let (from, to) = (first.to_string(), last.to_string());
    let gap = width.saturating_sub(from.chars().count() + to.chars().count()).max(1);
    let axis = format!("{:margin$}  {from}{}{to}\n", "", " ".repeat(gap));
    text.push_str(&style.paint(Tone::Faint, &axis));
    text
}

/// The mean of each column; `None` where nothing falls into it.
fn columns(
    points: &[Point],
    (first, last): (Timestamp, Timestamp),
    width: usize,
) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0_u32); width];
    let whole_time = last.since(first).as_secs_f64();
    for point in points {
        let share =
            if whole_time > 0.0 { point.at.since(first).as_secs_f64() / whole_time } else { 0.0 };
        let most = u32::try_from(width.saturating_sub(1)).unwrap_or(u32::MAX);
        let place = usize::try_from(whole(share * f64::from(most))).unwrap_or(0);
        if let Some(sum) = sums.get_mut(place) {
            *sum = (sum.0 + point.value, sum.1 + 1);
        }
    }
    sums.into_iter().map(|(sum, count)| (count > 0).then(|| sum / f64::from(count))).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place on the screen: rounded, and never negative"
)]
fn whole(value: f64) -> u32 {
    value.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// A number for an axis: short, with a unit of a thousand where it is long.
fn number(value: f64) -> String {
    const UNITS: [(f64, &str); 4] = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")];
    let unit = UNITS.iter().find(|(from, _)| value.abs() >= *from);
    match unit {
        Some((1e4, name)) => format!("{:.1}{name}", value / 1e3),
        Some((from, name)) => format!("{:.1}{name}", value / from),
        None if value.fract() == 0.0 => format!("{value:.0}"),
        None => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(minute: i64, value: f64) -> Point {
        Point { at: Timestamp::from_millis(minute * 60_000), value }
    }

    fn drawn(points: &[Point]) -> String {
        chart(Style { width: 25, ..Style::PLAIN }, points)
    }

    #[test]
    fn a_rise_a_gap_and_a_fall() {
        let text = drawn(&[point(0, 0.0), point(1, 40.0), point(8, 80.0), point(9, 10.0)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 11);
        assert!(lines[0].starts_with("80 ┤") && lines[9].starts_with(" 0 ┤"), "{text}");
        assert_eq!(lines[0].chars().filter(|c| *c == '█').count(), 1, "{text}");
        // What is zero was measured, and shows; in the gap nothing does.
        assert_eq!(lines[9], " 0 ┤▁ █              █ █", "{text}");
        assert!(lines[10].contains("1970-01-01T00:00:00"), "{text}");
    }

    #[test]
    fn values_far_from_zero_use_the_whole_height() {
        let text = drawn(&[point(0, 0.98), point(1, 0.99)]);
        assert!(text.lines().nth(9).unwrap().starts_with("0.980 ┤"), "{text}");
        let flat = drawn(&[point(0, 5.0), point(1, 5.0)]);
        assert!(flat.lines().next().unwrap().contains('█'), "{flat}");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(drawn(&[]), "nothing was measured\n");
        assert_eq!(drawn(&[point(0, f64::NAN)]), "nothing was measured\n");
        assert_eq!(number(12_345_678.0), "12.3M");
        assert_eq!(number(20_480.0), "20.5k");
    }
}
