//! What a language model is told of an answer, and what of its reply may be shown. PURE.
//!
//! A model is told the question without what stands in quotes and without numbers and addresses in it, figures,
//! names of tables and indexes, statements without literals. Names of people, applications and hosts are not told.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use super::reply::{Evidence, text};
use crate::tools::analysis::text::{object_in, prose, without_literals};

/// The columns whose texts are told. Of all others only numbers are.
const TOLD: &[&str] = &[
    "action",
    "bloat_source",
    "blocked",
    "cause",
    "column",
    "column_type",
    "columns",
    "constraint",
    "dead_ratio",
    "findings",
    "impact",
    "index",
    "index_name",
    "kept",
    "kind",
    "level",
    "lock_mode",
    "metric",
    "note",
    "object",
    "obstacles",
    "query",
    "references",
    "relation",
    "schema_name",
    "sequence",
    "slot_type",
    "state",
    "table",
    "table_name",
    "title",
    "unit",
    "verdict",
    "wal_status",
    "why",
];

/// What a model replied, as it should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The answer in prose.
    pub explanation: String,
    /// A SELECT that would show more.
    pub sql: Option<String>,
}

/// What a model is asked.
pub fn prompt(question: &str, evidence: &[Evidence]) -> String {
    let mut told = String::new();
    for one in evidence {
        for list in &one.lists {
            writeln!(told, "{}: {} {}", one.source, list.total, list.what).ok();
            for row in &list.rows {
                let cells = list.columns.iter().filter_map(|column| {
                    let value = may_tell(column, row.get(column)?)?;
                    Some(format!("{column}={value}"))
                });
                writeln!(told, "  {}", cells.collect::<Vec<_>>().join(" ")).ok();
            }
        }
    }
    format!(
        "A DBA of a PostgreSQL database asks: {}\n\nMeasured, values removed:\n{told}\n\
         Answer with one JSON object and nothing else: {{\"explanation\": \"the answer in at most four \
         sentences, from what was measured only\", \"sql\": \"a single SELECT over the system catalogs that \
         would show more, or null\"}}",
        masked(question)
    )
}

fn may_tell(column: &str, value: &Value) -> Option<String> {
    match value {
        Value::Number(_) | Value::Bool(_) => Some(text(value)),
        Value::String(said) if TOLD.contains(&column) => Some(without_values(said)),
        _ => None,
    }
}

/// A text without what stands in quotes and without numbers: `t1` and `$1` stay.
fn without_values(said: &str) -> String {
    let mut masked = String::with_capacity(said.len());
    let mut before = ' ';
    for c in without_literals(said).chars() {
        let begins = c.is_ascii_digit() && !(before.is_alphanumeric() || "_$…".contains(before));
        let goes_on = c.is_ascii_digit() && before == '…';
        if begins {
            masked.push('…');
            before = '…';
        } else if !goes_on {
            masked.push(c);
            before = c;
        }
    }
    masked
}

/// A question without what may be somebody's: quoted texts, numbers, addresses.
fn masked(question: &str) -> String {
    let plain = without_literals(&question.replace('"', "'"));
    let word = |word: &str| {
        let is_value = word.contains(|c: char| c.is_ascii_digit() || c == '@');
        if is_value { "…".to_owned() } else { word.to_owned() }
    };
    plain.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// Reads what a model wrote: the JSON object in it, whatever stands around it.
pub fn read(text: &str) -> Option<Claim> {
    let mut claim: Claim = object_in(text)?;
    claim.explanation = prose(&claim.explanation);
    claim.sql = claim.sql.filter(|sql| !sql.trim().is_empty());
    (!claim.explanation.trim().is_empty()).then_some(claim)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::analysis::ask::{reply, sources};

    #[test]
    fn no_value_and_nobodys_name_is_told() {
        let source = sources::find("performance/collect_sessions.locks").unwrap();
        let output = json!({ "rows": [{
            "pid": 4242, "wait_seconds": 7.5, "relation": "s.orders", "user_name": "ada",
            "query": "update s.orders set note = 'secret' where id = 7",
        }] });
        let evidence = reply::evidence(source, &output, &std::collections::BTreeSet::new());
        let asked =
            prompt("why does ada@example.org wait for \"John Doe\" since 17:03?", &[evidence]);
        assert!(
            asked.contains("wait_seconds=7.5") && asked.contains("relation=s.orders"),
            "{asked}"
        );
        for value in ["ada", "secret", "id = 7", "John", "17:03", "example.org"] {
            assert!(!asked.contains(value), "{value}: {asked}");
        }
    }

    #[test]
    fn numbers_are_values_and_parts_of_names_are_not() {
        let text = "select a1 from t2 where b = 4711 and c = $1 and d > 1.5";
        let masked = "select a1 from t2 where b = … and c = $1 and d > ….…";
        assert_eq!(without_values(text), masked);
    }

    #[test]
    fn what_surrounds_a_claim_is_left_out() {
        let claim = read("Sure!\n{\"explanation\": \"a\\u0007 b\", \"sql\": \" \"}\nBye").unwrap();
        assert_eq!(claim, Claim { explanation: "a b".into(), sql: None });
        assert_eq!(read("no idea"), None);
        assert_eq!(read("{\"sql\": \"select 1\"}"), None);
        assert_eq!(read("}{"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            drop((read(&text), prompt(&text, &[])));
        }
    }
}
