//! The audit as text, JSON and CSV. PURE.

use std::fmt::Write as _;

use super::query::AuditRow;

const COLUMNS: [&str; 8] = ["at", "position", "run", "step", "actor", "from", "action", "detail"];

fn cells(row: &AuditRow) -> [String; 8] {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    [
        row.at.to_string(),
        row.position.to_string(),
        text(&row.run),
        text(&row.step),
        text(&row.actor),
        text(&row.from),
        row.action.clone(),
        row.detail.clone(),
    ]
}

/// One line per row, for people: time, run and step, who, what.
pub fn audit_text(rows: &[AuditRow]) -> String {
    let mut text = String::new();
    for row in rows {
        let place = [row.run.as_deref(), row.step.as_deref()];
        let place = place.into_iter().flatten().collect::<Vec<_>>().join("/");
        let who = match (&row.actor, &row.from) {
            (Some(actor), Some(from)) => format!("{actor} ({from})"),
            (Some(actor), None) => actor.clone(),
            (None, _) => "-".to_owned(),
        };
        // A statement of many lines, or a forged line break in a reason, stays one line.
        let detail = row.detail.split_whitespace().collect::<Vec<_>>().join(" ");
        let place = if place.is_empty() { "-" } else { &place };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {place}  {who}  {}  {detail}", row.at, row.action);
    }
    text
}

/// An array of objects.
pub fn audit_json(rows: &[AuditRow]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(rows)
}

/// Comma-separated values (RFC 4180) with a header line.
pub fn audit_csv(rows: &[AuditRow]) -> String {
    let mut text = COLUMNS.join(",") + "\r\n";
    for row in rows {
        text += &cells(row).map(|cell| quoted(&cell)).join(",");
        text += "\r\n";
    }
    text
}

/// A cell that no reader takes for two, and no spreadsheet for a formula.
fn quoted(cell: &str) -> String {
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let guard = if formula { "'" } else { "" };
    if formula || cell.contains([',', '"', '\n', '\r']) {
        return format!("\"{guard}{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;

    fn row(detail: &str) -> AuditRow {
        AuditRow {
            at: Timestamp::from_millis(0),
            position: 7,
            run: Some("aaaa".into()),
            step: None,
            actor: Some("ada".into()),
            from: Some("host, tty1".into()),
            action: "approved".into(),
            detail: detail.into(),
        }
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let csv = audit_csv(&[row("say \"yes\"\nplease"), row("=1+1"), row("plain")]);
        let expected = "at,position,run,step,actor,from,action,detail\r\n\
            1970-01-01T00:00:00.000Z,7,aaaa,,ada,\"host, tty1\",approved,\"say \"\"yes\"\"\nplease\"\r\n\
            1970-01-01T00:00:00.000Z,7,aaaa,,ada,\"host, tty1\",approved,\"'=1+1\"\r\n\
            1970-01-01T00:00:00.000Z,7,aaaa,,ada,\"host, tty1\",approved,plain\r\n";
        assert_eq!(csv, expected);
    }

    #[test]
    fn text_is_one_line_per_row() {
        let text = audit_text(&[row("drop index\n  i"), row("x")]);
        assert_eq!(
            text.lines().next(),
            Some("1970-01-01T00:00:00.000Z  aaaa  ada (host, tty1)  approved  drop index i")
        );
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn json_reads_back() {
        let rows = vec![row("x")];
        let json = audit_json(&rows).unwrap();
        assert_eq!(serde_json::from_str::<Vec<AuditRow>>(&json).unwrap(), rows);
    }
}
