//! A question to the person at the terminal.

use std::io::Write as _;

use tokio::sync::oneshot;

/// Asks; everything but a yes is a no.
pub(crate) async fn confirm(question: &str) -> bool {
    let question = question.to_owned();
    let (answer, answered) = oneshot::channel();
    // A thread of its own: a read of the terminal cannot be given up, and must not keep the program
    // from ending when the person interrupts it.
    let asked = std::thread::Builder::new().name("prompt".to_owned()).spawn(move || {
        let mut out = std::io::stderr();
        drop(out.write_all(question.as_bytes()));
        drop(out.flush());
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line).is_ok();
        let _asked_no_longer = answer.send(read && is_yes(&line));
    });
    asked.is_ok() && answered.await.unwrap_or(false)
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_a_yes_is_a_no() {
        assert!(is_yes("y\n") && is_yes(" Yes "));
        assert!(!is_yes("\n") && !is_yes("yellow") && !is_yes("n"));
    }
}
