//! Tables for lists. PURE.

use comfy_table::{ContentArrangement, Table as Grid};

use super::style::{Style, Tone};

/// Lays rows out under their headings. Without rows: `nothing`.
pub fn table(style: Style, headings: &[&str], rows: Vec<Vec<String>>, nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{}\n", style.paint(Tone::Faint, nothing));
    }
    let mut grid = Grid::new();
    grid.load_preset(comfy_table::presets::NOTHING)
        .force_no_tty()
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(style.width).unwrap_or(u16::MAX))
        .set_header(headings.iter().map(|heading| heading.to_uppercase()).collect::<Vec<_>>());
    grid.add_rows(rows);
    for column in grid.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = grid.to_string();
    let mut lines = text.lines().map(str::trim_end);
    let head = lines.next().map(|line| style.paint(Tone::Faint, line)).unwrap_or_default();
    lines.fold(format!("{head}\n"), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["a".into(), "bbb".into()], vec!["cccc".into(), "d".into()]];
        let text = table(Style::PLAIN, &["one", "two"], rows, "none");
        assert_eq!(text, "ONE   TWO\na     bbb\ncccc  d\n");
        assert_eq!(table(Style::PLAIN, &["one"], vec![], "no runs"), "no runs\n");
    }
}
