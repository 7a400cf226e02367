//! "Did you mean": the known name that is closest to an unknown one.

/// Longer names are not compared.
const LONGEST: usize = 64;

/// More known names than this are not listed.
const MOST: usize = 12;

/// Advice for an unknown name: the one that was perhaps meant, or else all there are.
pub(crate) fn help<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(found) = closest(name, &known) {
        return Some(format!("did you mean `{found}`?"));
    }
    match known.as_slice() {
        [] => None,
        [one] => Some(format!("the only one is `{one}`")),
        several if several.len() <= MOST => Some(format!("known are {}", join(several))),
        _ => None,
    }
}

/// Names between backticks, with commas.
pub(super) fn join(names: &[&str]) -> String {
    let shown = names.iter().take(MOST).map(|name| format!("`{name}`"));
    let more = (names.len() > MOST).then(|| "…".to_owned());
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

fn closest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let length = name.chars().count();
    if length > LONGEST || length == 0 {
        return None;
    }
    let folded = name.to_lowercase().replace(['-', ' '], "_");
    let allowed = (length / 3).max(1);
    known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&folded, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_listed() {
        let known = ["timeout", "retry", "needs"];
        assert_eq!(help("timeuot", known).as_deref(), Some("did you mean `timeout`?"));
        assert_eq!(help("Needs", known).as_deref(), Some("did you mean `needs`?"));
        assert_eq!(help("colour", known).as_deref(), Some("known are `timeout`, `retry`, `needs`"));
        assert_eq!(help("x", []), None);
        assert_eq!(help(&"x".repeat(100_000), ["x"]).as_deref(), Some("the only one is `x`"));
    }
}
