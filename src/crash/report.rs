//! What a test found: a matrix of boundaries and kills. PURE.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::boundary::Boundary;
use super::snapshot::Difference;
use crate::report::style::{Style, Tone, count, length};

/// What became of a run that was killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It ended as the undisturbed ones did.
    Same,
    /// It waits for a person, as the workflow says that it shall.
    InDoubt {
        /// The changes that nobody can tell the end of.
        changes: Vec<String>,
    },
    /// It ended otherwise.
    Different {
        /// How.
        differences: Vec<Difference>,
    },
    /// It ended without coming to the boundary, several times.
    NotReached,
    /// It could not be carried out or looked at.
    Broken {
        /// Why.
        why: String,
    },
    /// It was not tried: the one before it went wrong, or chance decides where its place is.
    NotTried,
}

impl Verdict {
    const fn mark(&self) -> (Tone, &'static str) {
        match self {
            Self::Same => (Tone::Good, "same"),
            Self::InDoubt { .. } => (Tone::Warn, "in doubt"),
            Self::Different { .. } => (Tone::Bad, "DIFFERENT"),
            Self::NotReached => (Tone::Bad, "not reached"),
            Self::Broken { .. } => (Tone::Bad, "BROKEN"),
            Self::NotTried => (Tone::Faint, "-"),
        }
    }

    const fn is_good(&self) -> bool {
        matches!(self, Self::Same | Self::InDoubt { .. })
    }
}

/// A boundary, and what became of the runs that were killed there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The boundary.
    pub boundary: Boundary,
    /// Killed there.
    pub kill: Verdict,
    /// Killed there, and again while that was recovered from.
    pub double_kill: Verdict,
    /// Where the second kill was.
    pub second: Option<Boundary>,
}

/// What became of one run that was killed at each boundary in turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InOneRun {
    /// Where a process of it died, in order.
    pub died: Vec<String>,
    /// How the run ended.
    pub ended: Verdict,
}

/// What a test found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The workflow.
    pub workflow: String,
    /// What each run had for itself.
    pub ground: String,
    /// How the undisturbed runs ended.
    pub outcome: String,
    /// How many boundaries an undisturbed run passes.
    pub boundaries: usize,
    /// How many processes were killed where they should be.
    pub kills: usize,
    /// Those that were tested with a run for each.
    pub lines: Vec<Line>,
    /// The run that died at each of them, when that is how it was tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_one_run: Option<InOneRun>,
    /// What is not compared, and why.
    pub not_compared: BTreeMap<String, String>,
    /// How long it took.
    #[serde(serialize_with = "seconds", rename = "seconds")]
    pub took: Duration,
}

fn seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

impl Report {
    /// Whether every run that was killed ended as it should.
    pub fn is_good(&self) -> bool {
        self.lines.iter().all(|line| {
            line.kill.is_good() && (line.double_kill.is_good() || line.second.is_none())
        }) && self.in_one_run.as_ref().is_none_or(|run| run.ended.is_good())
    }

    fn verdicts(&self) -> impl Iterator<Item = (&Line, &'static str, &Verdict)> {
        self.lines.iter().flat_map(|line| {
            [(line, "killed", &line.kill), (line, "killed twice", &line.double_kill)]
        })
    }

    /// The report for people.
    pub fn text(&self, style: Style) -> String {
        let mut text = String::new();
        let head = format!("crash test of {}", self.workflow);
        let _fits = writeln!(text, "{}", style.paint(Tone::Strong, &head));
        let _fits =
            writeln!(text, "each run had {}; undisturbed it {}\n", self.ground, self.outcome);
        if let Some(run) = &self.in_one_run {
            self.killed_in_one_run(run, &mut text, style);
            return text;
        }
        let width = self.lines.iter().map(|line| line.boundary.to_string().chars().count()).max();
        let width = width.unwrap_or(0).max("BOUNDARY".len());
        let title = format!("{:width$}  {:11}  {}", "BOUNDARY", "KILL", "DOUBLE KILL");
        let _fits = writeln!(text, "{}", style.paint(Tone::Faint, &title));
        for line in &self.lines {
            let (tone, mark) = line.kill.mark();
            let one = style.paint(tone, &format!("{mark:11}"));
            let (tone, mark) = line.double_kill.mark();
            let two = style.paint(tone, mark);
            let row = format!("{:width$}  {one}  {two}", line.boundary.to_string());
            let _fits = writeln!(text, "{}", row.trim_end());
        }
        text.push('\n');
        self.not_compared(&mut text, style);
        self.first_fault(&mut text, style);
        self.doubts(&mut text, style);
        self.summary(&mut text, style);
        text
    }

    fn killed_in_one_run(&self, run: &InOneRun, text: &mut String, style: Style) {
        let _fits = writeln!(text, "{}", style.paint(Tone::Faint, "A PROCESS OF ONE RUN DIED AT"));
        for boundary in &run.died {
            let _fits = writeln!(text, "{boundary}");
        }
        text.push('\n');
        self.not_compared(text, style);
        let (tone, _) = run.ended.mark();
        fault(text, &style.paint(tone, "in the end:"), &run.ended);
        if let Verdict::InDoubt { changes } = &run.ended {
            doubts(text, style, &changes.iter().collect());
        }
        let kills = count(self.kills, "kill");
        self.judgement(
            text,
            style,
            &format!("{kills} in one run: {}", run.ended.mark().1.to_lowercase()),
        );
    }

    fn not_compared(&self, text: &mut String, style: Style) {
        if self.not_compared.is_empty() {
            return;
        }
        let _fits = writeln!(text, "{}", style.paint(Tone::Faint, "not compared:"));
        for (place, why) in &self.not_compared {
            let _fits =
                writeln!(text, "  {}", style.paint(Tone::Faint, &format!("{place} ({why})")));
        }
        text.push('\n');
    }

    fn first_fault(&self, text: &mut String, style: Style) {
        let bad = |(_, _, verdict): &(&Line, &str, &Verdict)| {
            !verdict.is_good() && **verdict != Verdict::NotTried
        };
        let Some((line, how, verdict)) = self.verdicts().find(bad) else { return };
        let head = format!("{how} at {}:", line.boundary);
        fault(text, &style.paint(Tone::Bad, &head), verdict);
    }

    fn doubts(&self, text: &mut String, style: Style) {
        let mut told: BTreeSet<&String> = BTreeSet::new();
        for (_, _, verdict) in self.verdicts() {
            if let Verdict::InDoubt { changes } = verdict {
                told.extend(changes);
            }
        }
        if !told.is_empty() {
            doubts(text, style, &told);
        }
    }

    fn summary(&self, text: &mut String, style: Style) {
        let number = |mark: &str| self.verdicts().filter(|(_, _, v)| v.mark().1 == mark).count();
        let parts = ["same", "in doubt", "DIFFERENT", "not reached", "BROKEN"];
        let mut parts: Vec<String> = parts
            .into_iter()
            .filter(|mark| number(mark) > 0)
            .map(|mark| format!("{} {}", number(mark), mark.to_lowercase()))
            .collect();
        let untried = self.lines.iter().filter(|line| line.double_kill == Verdict::NotTried);
        let untried = untried.count();
        if untried > 0 {
            parts.push(format!("{} not tried", count(untried, "second kill")));
        }
        let noun = if self.boundaries == 1 { "boundary" } else { "boundaries" };
        let (tested, kills) = (self.lines.len(), count(self.kills, "kill"));
        let of = self.boundaries;
        self.judgement(
            text,
            style,
            &format!("{tested} of {of} {noun}, {kills}: {}", parts.join(", ")),
        );
    }

    fn judgement(&self, text: &mut String, style: Style, what: &str) {
        let (tone, mark) = if self.is_good() { (Tone::Good, "✓") } else { (Tone::Bad, "✗") };
        let line = format!("{mark} {what}  ({})", length(self.took));
        let _fits = writeln!(text, "{}", style.paint(tone, &line));
    }
}

/// What went wrong, below a heading; nothing, when nothing did.
fn fault(text: &mut String, head: &str, verdict: &Verdict) {
    let lines: Vec<String> = match verdict {
        Verdict::Different { differences } => differences
            .iter()
            .map(|Difference { place, what }| format!("{place}: {what}"))
            .collect(),
        Verdict::Broken { why } => vec![why.clone()],
        Verdict::NotReached => vec!["it ended several times without coming there".to_owned()],
        Verdict::Same | Verdict::InDoubt { .. } | Verdict::NotTried => return,
    };
    let _fits = writeln!(text, "{head}");
    for line in lines {
        let _fits = writeln!(text, "  {line}");
    }
    text.push('\n');
}

/// Changes that a person is asked about.
fn doubts(text: &mut String, style: Style, changes: &BTreeSet<&String>) {
    let head = "put before a person, as the workflow says (`lakeops settle`):";
    let _fits = writeln!(text, "{}", style.paint(Tone::Warn, head));
    for change in changes {
        let _fits = writeln!(text, "  {change}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, kill: Verdict, double_kill: Verdict) -> Line {
        let boundary = Boundary { name: name.to_owned(), nth: 1 };
        Line { second: Some(boundary.clone()), boundary, kill, double_kill }
    }

    fn report(lines: Vec<Line>) -> Report {
        Report {
            workflow: "pay".to_owned(),
            ground: "a copy".to_owned(),
            outcome: "succeeded".to_owned(),
            boundaries: 9,
            kills: 4,
            lines,
            in_one_run: None,
            not_compared: [("table public.t: at".to_owned(), "differs".to_owned())].into(),
            took: Duration::from_millis(2_500),
        }
    }

    #[test]
    fn a_good_one_is_short() {
        let doubt = Verdict::InDoubt { changes: vec!["`pay`: command x".to_owned()] };
        let good = report(vec![line("pay/do 0/after effect", Verdict::Same, doubt)]);
        assert!(good.is_good());
        let text = good.text(Style::PLAIN);
        assert!(text.contains("pay/do 0/after effect  same         in doubt"), "{text}");
        assert!(text.contains("1 of 9 boundaries, 4 kills: 1 same, 1 in doubt  (2.5s)"), "{text}");
        assert!(text.contains("`pay`: command x") && text.contains("table public.t: at (differs)"));
    }

    #[test]
    fn a_run_that_died_everywhere_is_one() {
        let in_one_run = |ended| {
            let died = vec!["a/after commit".to_owned(), "pay/do 0/after effect".to_owned()];
            Report { in_one_run: Some(InOneRun { died, ended }), kills: 2, ..report(Vec::new()) }
        };
        let good = in_one_run(Verdict::Same);
        assert!(good.is_good());
        let text = good.text(Style::PLAIN);
        assert!(text.contains("DIED AT\na/after commit\npay/do 0/after effect\n"), "{text}");
        assert!(text.contains("✓ 2 kills in one run: same  (2.5s)"), "{text}");
        let bad = in_one_run(Verdict::Broken { why: "it stands still".to_owned() });
        assert!(!bad.is_good());
        let text = bad.text(Style::PLAIN);
        assert!(text.contains("in the end:\n  it stands still\n"), "{text}");
        assert!(text.contains("✗ 2 kills in one run: broken"), "{text}");
        assert_eq!(serde_json::to_value(&good).unwrap()["in_one_run"]["ended"]["verdict"], "same");
    }

    #[test]
    fn the_first_difference_is_shown() {
        let other = |what: &str| Verdict::Different {
            differences: vec![Difference {
                place: "table public.t".to_owned(),
                what: what.to_owned(),
            }],
        };
        let bad = report(vec![
            line("a", Verdict::Same, other("one row too many")),
            line("b", other("later"), Verdict::NotTried),
        ]);
        assert!(!bad.is_good());
        let text = bad.text(Style::PLAIN);
        assert!(text.contains("killed twice at a:\n  table public.t: one row too many"), "{text}");
        assert!(!text.contains("later") && text.contains("1 same, 2 different"), "{text}");
        let json = serde_json::to_value(&bad).unwrap();
        assert_eq!(json["lines"][0]["double_kill"]["verdict"], "different");
        assert_eq!(json["seconds"], 2.5);
    }
}
