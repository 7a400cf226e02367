//! Every reviewed SQL file means on real servers, from 14 to 18, what its header says.

use lakeops::config::settings::Limits;
use lakeops::kernel::{Bind, Query, SqlFile, Timestamp};
use lakeops::postgres::{PgEndpoint, PgError, PgReader};
use lakeops::tools::sql_catalog;

use crate::harness::versions::{self, VERSIONS};
use crate::harness::{Place, execute, postgres};

/// A database that has what the files speak of.
async fn database() -> PgEndpoint {
    let endpoint = postgres().await.fresh_database("sql").await;
    set_up(&endpoint).await;
    endpoint
}

async fn set_up(endpoint: &PgEndpoint) {
    execute(endpoint, &["create extension pg_stat_statements"]).await;
    for name in [
        "engine/create_lakeops_schema",
        "engine/create_applied_change",
        "provisioning/apply_schema_migration.create",
        "health/archive_cold_data_to_delta.create",
    ] {
        execute(endpoint, &[sql_catalog::find(name).unwrap().text]).await;
    }
}

/// The versions of `-- needs: PostgreSQL 14 …`: `14`, `14 to 15`, `16 only`.
fn is_for(file: &SqlFile, major: u32) -> bool {
    let needs = file.header("needs").unwrap();
    let version = needs.split(['.', ';', ',']).next().unwrap().trim();
    let rest = version.strip_prefix("PostgreSQL ").unwrap_or_else(|| {
        panic!("{}: `needs` begins with `PostgreSQL <version>`, not `{needs}`", file.name)
    });
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |text: &str| text.parse::<u32>().unwrap();
    match words.as_slice() {
        [first] | [first, "or", "later"] => number(first) <= major,
        [first, "to", last] => (number(first)..=number(last)).contains(&major),
        [one, "only"] => number(one) == major,
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

/// What the files for a version mean on it, where that is not what they say. Those that read are run.
async fn mistakes(endpoint: &PgEndpoint, major: u32) -> Vec<String> {
    let reader = PgReader::new(endpoint.clone(), &Limits::default(), "lakeops:test");
    let mut wrong = Vec::new();
    for file in sql_catalog::FILES.iter().filter(|file| is_for(file, major)) {
        let described = match reader.describe(file.name, file.text).await {
            Ok(described) => described,
            Err(error) => {
                wrong.push(format!("{major}: {}: {error:?}", file.name));
                continue;
            }
        };
        let columns: Vec<_> =
            described.columns.into_iter().map(|(name, kind)| (name, canonical(&kind))).collect();
        if columns != listed(file, "columns") {
            wrong.push(format!("{major}: {}: columns are {columns:?}", file.name));
        }
        let parameters: Vec<_> = described.parameters.iter().map(|kind| canonical(kind)).collect();
        let expected: Vec<_> = listed(file, "params").into_iter().map(|(_, kind)| kind).collect();
        if parameters != expected {
            wrong.push(format!("{major}: {}: parameters are {parameters:?}", file.name));
        }
        let binds = parameters.iter().map(|kind| bind(kind)).collect();
        match reader.query(file.name, &Query::with_binds(file.body(), binds)).await {
            // What changes anything is parsed only.
            Ok(_) | Err(PgError::NotARead { .. }) => {}
            // The value that was made up is none, such as a time.
            Err(error) if error.sqlstate().is_some_and(|state| state.starts_with("22")) => {}
            Err(error) => wrong.push(format!("{major}: {}: {error:?}", file.name)),
        }
    }
    reader.close().await;
    wrong
}

/// Some value of a type.
fn bind(kind: &str) -> Bind {
    match kind {
        "int8" | "int4" | "oid" | "xid" => Bind::Int(1),
        "float8" | "numeric" => Bind::Float(1.0),
        "bool" => Bind::Bool(true),
        "text[]" => Bind::TextArray(vec!["public.t".to_owned()]),
        "int8[]" | "int4[]" => Bind::IntArray(vec![1]),
        "timestamptz" => Bind::Timestamp(Timestamp::from_millis(0)),
        "jsonb" => Bind::Json(serde_json::Value::Null),
        _ => Bind::Text("public.t".to_owned()),
    }
}

#[tokio::test]
async fn headers_name_the_columns_and_parameters() {
    let wrong = mistakes(&database().await, 17).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same on every other version that is supported.
#[tokio::test(flavor = "multi_thread")]
async fn files_mean_the_same_from_14_to_18() {
    let place = Place::new();
    let state = place.state();
    let looks = VERSIONS.iter().map(|(major, version)| async {
        let Some(cluster) = versions::server(version, &state).await else { return Vec::new() };
        let endpoint = cluster.endpoint();
        set_up(&endpoint).await;
        execute(&endpoint, &["create table t (a int primary key, b text)"]).await;
        let wrong = mistakes(&endpoint, *major).await;
        cluster.stop().await.unwrap();
        wrong
    });
    let wrong: Vec<String> = futures::future::join_all(looks).await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn reads_have_a_plan() {
    let endpoint = database().await;
    let mut planned = 0;
    for file in sql_catalog::FILES.iter().filter(|file| is_for(file, 17)) {
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
    let of = |name: &str| sql_catalog::find(name).is_some_and(|file| is_for(file, 17));
    assert!(of("shared/counters17"));
    assert!(!of("shared/counters16"));
    assert!(!of("shared/counters14"));
}
