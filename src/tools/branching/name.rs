//! Names of projects and branches, made from what people write. PURE.

use crate::kernel::Failure;

/// The longest name that the platform takes.
const LONGEST: usize = 63;

/// The id for what somebody calls a project or a branch: `qa-release-v2.3.0` and `feat/New Cart` become
/// `qa-release-v2-3-0` and `feat-new-cart`. The same text always gives the same id, so that what was
/// made by a name is found by it.
pub(in crate::tools) fn to_id(wanted: &str) -> Result<String, Failure> {
    let wanted = wanted.trim();
    let bare = wanted.strip_prefix("refs/heads/").unwrap_or(wanted);
    let mut id = String::with_capacity(bare.len());
    for letter in bare.chars() {
        let letter = letter.to_ascii_lowercase();
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            id.push(letter);
        } else if !id.ends_with('-') && !id.is_empty() {
            id.push('-');
        }
    }
    // Cut where there are only ASCII letters left.
    id.truncate(LONGEST);
    let id = id.trim_end_matches('-');
    if !id.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(Failure::permanent(
            "branching::bad_name",
            format!("no id can be made from `{wanted}`: it must begin with a letter"),
        )
        .with_help("write letters, digits and hyphens, for example `feat-cart`"));
    }
    Ok(id.to_owned())
}

/// The id of the branch of a pull request.
pub(in crate::tools) fn of_pull_request(number: u64) -> String {
    format!("ci-pr-{number}")
}

/// The id of a project of a domain in an environment.
pub(in crate::tools) fn of_project(domain: &str, environment: &str) -> Result<String, Failure> {
    to_id(&format!("{domain}-{environment}"))
}

/// The name under which Unity Catalog knows something: it writes underscores.
pub(in crate::tools) fn in_unity_catalog(id: &str) -> String {
    id.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_an_id() {
        for (wanted, id) in [
            ("qa-release-v2.3.0", "qa-release-v2-3-0"),
            ("refs/heads/feat/New Cart!", "feat-new-cart"),
            ("  dev_anna  ", "dev-anna"),
            ("a--b__c", "a-b-c"),
            ("--x--", "x"),
            ("Größe", "gr-e"),
        ] {
            assert_eq!(to_id(wanted).unwrap(), id, "{wanted}");
            assert_eq!(to_id(id).unwrap(), id, "{id}");
        }
    }

    #[test]
    fn a_long_name_is_cut_and_does_not_end_with_a_hyphen() {
        let cut = to_id(&format!("feat-{}-{}", "x".repeat(57), "y")).unwrap();
        assert_eq!(cut, format!("feat-{}", "x".repeat(57)));
        assert_eq!(to_id(&"ab".repeat(60)).unwrap().len(), 63);
    }

    #[test]
    fn some_texts_give_no_name() {
        for wanted in ["", "7-up", "---", "…", "2026.11"] {
            assert_eq!(to_id(wanted).unwrap_err().code, "branching::bad_name", "{wanted}");
        }
    }

    #[test]
    fn projects_are_named_by_domain_and_environment() {
        assert_eq!(of_project("Web Shop", "prod").unwrap(), "web-shop-prod");
        assert_eq!(in_unity_catalog("web-shop-prod"), "web_shop_prod");
        assert_eq!(of_pull_request(17), "ci-pr-17");
    }
}
