//! How a text may look: with or without colour, and how wide. PURE.

use std::time::Duration;

use crate::kernel::Target;

/// How a text may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether colours may be used. A text reads well without them.
    pub color: bool,
    /// How many columns there are.
    pub width: usize,
}

/// What a piece of text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something good, or added.
    Good,
    /// Something to look at, or changed.
    Warn,
    /// Something bad, or removed.
    Bad,
    /// Something less important.
    Faint,
    /// A heading or a name.
    Strong,
}

impl Style {
    /// No colour, 100 columns: what a pipe gets.
    pub const PLAIN: Self = Self { color: false, width: 100 };

    /// The text in a tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text, cut to what is left of a line after `used` columns. One line: line breaks become
    /// spaces.
    pub fn fit(self, text: &str, used: usize) -> String {
        let room = self.width.saturating_sub(used).max(20);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if line.chars().count() <= room {
            return line;
        }
        let cut: String = line.chars().take(room.saturating_sub(1)).collect();
        format!("{}…", cut.trim_end())
    }
}

/// The tone and the mark of a state of a step or of an outcome of a run.
pub fn of_state(state: &str) -> (Tone, &'static str) {
    match state {
        "succeeded" | "applied" | "approved" | "ok" => (Tone::Good, "✓"),
        "failed" | "stuck" | "rejected" | "expired" | "fail" => (Tone::Bad, "✗"),
        "in_doubt" | "warn" => (Tone::Bad, "?"),
        "running" | "started" | "compensating" => (Tone::Warn, "▸"),
        "waiting" | "waiting_approval" | "backoff" | "proposed" => (Tone::Warn, "…"),
        "compensated" | "undone" => (Tone::Warn, "↩"),
        "cancelled" => (Tone::Warn, "■"),
        "skipped" | "moot" | "abandoned" | "skip" => (Tone::Faint, "–"),
        _ => (Tone::Faint, "·"),
    }
}

/// A length of time for people: `12ms`, `3.4s`, `2m 5s`, `3h 20m`.
pub fn length(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}.{}s", (millis % 1000) / 100),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..172_800 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A target without the parts that are not said.
pub fn place(target: &Target) -> String {
    let parts = [&target.project, &target.branch, &target.database];
    let said: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    if said.is_empty() { "the connection's own database".to_owned() } else { said.join("/") }
}

/// The number with its noun: `1 step`, `3 steps`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short() {
        let text = |millis| length(Duration::from_millis(millis));
        assert_eq!(text(12), "12ms");
        assert_eq!(text(3_456), "3.4s");
        assert_eq!(text(125_000), "2m 5s");
        assert_eq!(text(12_000_000), "3h 20m");
        assert_eq!(text(200_000_000), "2d 7h");
    }

    #[test]
    fn a_line_is_cut_to_the_width() {
        let style = Style { color: false, width: 30 };
        assert_eq!(style.fit("select 1\n  from t", 0), "select 1 from t");
        let cut = style.fit(&"x".repeat(100), 5);
        assert_eq!(cut.chars().count(), 25);
        assert!(cut.ends_with('…'));
        assert_eq!(Style::PLAIN.paint(Tone::Bad, "x"), "x");
    }
}
