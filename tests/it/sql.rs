//! Every reviewed SQL file means on a real PostgreSQL 17 what its header says.

use lakeops::config::settings::Limits;
use lakeops::kernel::SqlFile;
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::tools::sql_catalog;

use crate::harness::{execute, postgres};

/// A database that has what the files speak of.
async fn database() -> PgEndpoint {
    let endpoint = postgres().await.fresh_database("sql").await;
    execute(&endpoint, &["create extension pg_stat_statements"]).await;
    for name in [
        "engine/create_lakeops_schema",
        "engine/create_applied_change",
        "provisioning/apply_schema_migration.create",
    ] {
        execute(&endpoint, &[sql_catalog::find(name).unwrap().text]).await;
    }
    endpoint
}

/// The versions of `-- needs: PostgreSQL 14 …`: `14`, `14 to 15`, `16 only`.
fn is_for_17(file: &SqlFile) -> bool {
    let needs = file.header("needs").unwrap();
    let version = needs.split(['.', ';', ',']).next().unwrap().trim();
    let rest = version.strip_prefix("PostgreSQL ").unwrap_or_else(|| {
        panic!("{}: `needs` begins with `PostgreSQL <version>`, not `{needs}`", file.name)
    });
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |text: &str| text.parse::<u32>().unwrap();
    match words.as_slice() {
        [first] | [first, "or", "later"] => number(first) <= 17,
        [first, "to", last] => (number(first)..=number(last)).contains(&17),
        [one, "only"] => number(one) == 17,
        _ => panic!("{}: `needs` is not understood: `{version}`", file.name),
    }
}

/// `name type` pairs of a header key; what stands in parentheses is for people.
fn listed(file: &SqlFile, key: &str) -> Vec<(String, String)> {
    let mut text = file.header(key).unwrap();
    while let (Some(open), Some(close)) = (text.find('('), text.find(')')) {
        text.replace_range(open..=close, "");
    }
    if text.trim() == "none" {
        return Vec::new();
    }
    let pair = |item: &str| {
        let words: Vec<&str> = item.split_whitespace().collect();
        let words = if key == "params" { &words[1..] } else { &words[..] };
        let [name, kind @ ..] = words else { panic!("{}: `{item}`", file.name) };
        ((*name).to_owned(), canonical(&kind.join(" ")))
    };
    text.split(',').map(pair).collect()
}

fn canonical(kind: &str) -> String {
    let kind = kind.to_lowercase();
    let kind = kind.trim_end_matches(" null").trim_end_matches(" not");
    let (base, array) = kind.strip_suffix("[]").map_or((kind, ""), |base| (base, "[]"));
    let base = match base {
        "bigint" => "int8",
        "integer" | "int" => "int4",
        "boolean" => "bool",
        "double precision" => "float8",
        "timestamp with time zone" => "timestamptz",
        "\"char\"" => "char",
        other => other,
    };
    format!("{base}{array}")
}

#[tokio::test]
async fn headers_name_the_columns_and_parameters() {
    let reader = PgReader::new(database().await, &Limits::default(), "lakeops:test");
    let mut wrong = Vec::new();
    for file in sql_catalog::FILES.iter().filter(|file| is_for_17(file)) {
        let described = match reader.describe(file.name, file.text).await {
            Ok(described) => described,
            Err(error) => {
                wrong.push(format!("{}: {error:?}", file.name));
                continue;
            }
        };
        let columns: Vec<_> =
            described.columns.into_iter().map(|(name, kind)| (name, canonical(&kind))).collect();
        if columns != listed(file, "columns") {
            wrong.push(format!("{}: columns are {columns:?}", file.name));
        }
        let parameters: Vec<_> = described.parameters.iter().map(|kind| canonical(kind)).collect();
        let expected: Vec<_> = listed(file, "params").into_iter().map(|(_, kind)| kind).collect();
        if parameters != expected {
            wrong.push(format!("{}: parameters are {parameters:?}", file.name));
        }
    }
    reader.close().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn reads_have_a_plan() {
    let endpoint = database().await;
    let mut planned = 0;
    for file in sql_catalog::FILES.iter().filter(|file| is_for_17(file)) {
        let first = file.body().split_whitespace().next().unwrap();
        if matches!(first, "select" | "with") {
            let text = format!("explain (generic_plan) {}", file.body());
            execute(&endpoint, &[&text]).await;
            planned += 1;
        }
    }
    assert!(planned >= 15, "{planned}");
}

#[test]
fn every_version_has_its_variant() {
    let of = |name: &str| sql_catalog::find(name).is_some_and(is_for_17);
    assert!(of("health/monitor_system_health.sample17"));
    assert!(!of("health/monitor_system_health.sample16"));
    assert!(!of("health/monitor_system_health.sample14"));
}
