//! The index detectors.

use std::time::Duration;

use serde_json::{Value, json};

use super::bench::{Bench, now, sorted};
use crate::harness::execute;

#[tokio::test]
async fn every_trap_is_told_from_what_is_wrong() {
    let bench = Bench::with_traps().await;
    every_detector(&bench).await;
    bench.stop().await;
}

/// Precision and recall 1 on the fixture.
pub(super) async fn every_detector(bench: &Bench) {
    duplicates(bench).await;
    invalid(bench).await;
    foreign_keys(bench).await;
    unused(bench).await;
    bloated(bench).await;
}

async fn duplicates(bench: &Bench) {
    let output = bench.read("detect_duplicate_indexes", json!({})).await;
    let mut found: Vec<String> = output["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let sign = if it["exact"] == true { "=" } else { "<" };
            format!("{} {sign} {}", it["index"].as_str().unwrap(), it["kept"].as_str().unwrap())
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "\"Odd.Schema\".\"I 2\" = \"Odd.Schema\".\"I 1\"",
            "bl.fine_few < bl.fine_few_apart",
            "bl.fine_roomy = bl.fine_pkey",
            "dup.p_a < dup.p_ab",
            "dup.p_a_dup = dup.p_a",
            "dup.p_id = dup.t_pkey",
            "dup.p_inc < dup.p_ab",
            "dup.parts_id_dup = dup.parts_id",
            "dup.r_twin = dup.r_needed",
            "dup.u_twin = dup.u_x_key",
        ]
    );
    assert_eq!((&output["duplicates"], &output["redundant"]), (&json!(7), &json!(3)));
    assert_eq!(sorted(&output["mirrored"], "mirror"), ["dup.p_desc", "dup.p_desc"]);
    let odd = output["recommendations"].as_array().unwrap().iter();
    let odd = odd.filter(|it| it["schema"] == "Odd.Schema").collect::<Vec<_>>();
    let drop = "drop index concurrently \"Odd.Schema\".\"I 2\"";
    assert_eq!((odd.len(), &odd[0]["statement"]), (1, &json!(drop)));
    // The statement is right, and so is the one that takes it back.
    execute(&bench.endpoint, &[drop, odd[0]["undo"].as_str().unwrap()]).await;
}

async fn invalid(bench: &Bench) {
    let output = bench.read("detect_invalid_indexes", json!({})).await;
    assert_eq!(sorted(&output["findings"], "index"), ["bad.bad_left", "fk.f8_invalid"]);
}

async fn foreign_keys(bench: &Bench) {
    let output = bench.read("detect_missing_fk_indexes", json!({})).await;
    let found = sorted(&output["findings"], "constraint");
    assert_eq!(found, ["f1", "f10", "f3", "f5", "f7", "f8", "f9", "fp"]);
    assert_eq!(output["unserved"], 9, "one is too small to matter");
    let advice = output["recommendations"].as_array().unwrap();
    let of = |table: &str| advice.iter().find(|it| it["table"] == table).unwrap();
    assert_eq!(
        of("f1")["statement"],
        "create index concurrently \"f1_a_b_idx\" on \"fk\".\"f1\" (a, b)"
    );
    assert_eq!(of("fp")["blocks_writers"], true);
    // Followed, the advice is verified by the next run.
    let statement = of("f7")["statement"].as_str().unwrap();
    execute(&bench.endpoint, &[statement]).await;
    let earlier = [output.clone()];
    let later = bench.read_at("detect_missing_fk_indexes", json!({}), &earlier, now()).await;
    let closed = later.value["closed"].as_array().unwrap();
    assert_eq!((closed.len(), &closed[0]["status"]), (1, &json!("verified")), "{closed:?}");
    let rows: Vec<&Value> = later.history.iter().map(|row| &row.row["status"]).collect();
    assert_eq!(rows, [&json!("verified")], "only what is new is written");
    execute(&bench.endpoint, &[of("f7")["undo"].as_str().unwrap()]).await;
}

async fn unused(bench: &Bench) {
    let tool = "detect_unused_indexes";
    let arguments = json!({"min_size": "128KiB"});
    // Whatever has been used so far was used before the first look.
    let first = bench.read_at(tool, arguments.clone(), &[], now()).await.value;
    assert_eq!(first["unused"], 0, "one look says nothing: {first}");
    execute(&bench.endpoint, &["create index un_late on un.t (f)"]).await;
    use_some(bench).await;
    let in_a_week = now().plus(Duration::from_hours(24 * 8));
    let earlier = [first];
    let output = bench.read_at(tool, arguments.clone(), &earlier, in_a_week).await;
    let found = verdicts(&output.value, "unused", "un");
    assert_eq!(found, ["un.un_parts_unused", "un.un_unused"], "{:#}", output.value["findings"]);
    assert_eq!(verdicts(&output.value, "watching", "un"), ["un.un_late"]);
    assert_eq!(verdicts(&output.value, "needed", "un"), ["un.un_foreign_key", "un.un_statistics"]);
    // A replica that was not asked may use them.
    let asked = json!({"min_size": "128KiB", "replica_count": 1});
    let unsure = bench.read_at(tool, asked, &earlier, in_a_week).await.value;
    assert_eq!(unsure["unused"], 0);
    assert!(verdicts(&unsure, "unknown", "un").contains(&"un.un_unused".to_owned()));
    // One that was asked, and has seen as much, settles it.
    let both =
        json!({"min_size": "128KiB", "replica_count": 1, "replicas": [output.value.clone()]});
    let sure = bench.read_at(tool, both, &earlier, in_a_week).await.value;
    assert_eq!(verdicts(&sure, "unused", "un").len(), 2);
    execute(&bench.endpoint, &["drop index un.un_late"]).await;
}

/// Uses two indexes, and waits until the server has counted it.
async fn use_some(bench: &Bench) {
    let mut connection = crate::harness::connect(&bench.endpoint).await;
    for statement in [
        "set enable_seqscan = off; set enable_bitmapscan = off",
        "select count(*) from un.t where b = 7",
        "select count(*) from un.parts where a = 7",
    ] {
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
    }
    drop(connection);
    bench
        .until(
            "select count(*) = 2 from pg_stat_user_indexes where idx_scan > 0 \
             and (indexrelname = 'un_used' or indexrelname like 'parts_1_a%')",
        )
        .await;
}

fn verdicts(output: &Value, verdict: &str, schema: &str) -> Vec<String> {
    let list = output["findings"].as_array().unwrap().iter();
    let mut found: Vec<_> = list
        .filter(|it| it["verdict"] == verdict)
        .map(|it| it["index"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with(&format!("{schema}.")))
        .collect();
    found.sort();
    found
}

async fn bloated(bench: &Bench) {
    let arguments = json!({"bloat_size": "200KiB"});
    let output = bench.read("detect_bloated_indexes", arguments.clone()).await;
    let found = sorted(&output["findings"], "index");
    assert_eq!(found, ["bl.worn_pkey", "bl.worn_t"], "{:#}", output["findings"]);
    assert_eq!(output["not_measured"].as_array().unwrap().len(), 1, "bl.unknown");
    let estimate = output["findings"][0]["bloat_ratio"].as_f64().unwrap();
    execute(&bench.endpoint, &["create schema ext", "create extension pgstattuple schema ext"])
        .await;
    let output = bench.read("detect_bloated_indexes", arguments.clone()).await;
    assert_eq!(sorted(&output["findings"], "index"), ["bl.worn_pkey", "bl.worn_t"]);
    assert_eq!(output["findings"][0]["source"], "pgstatindex");
    let measured = output["findings"][0]["bloat_ratio"].as_f64().unwrap();
    assert!((estimate - measured).abs() < 0.08, "{estimate} and {measured}");
    for advice in output["recommendations"].as_array().unwrap() {
        execute(&bench.endpoint, &[advice["statement"].as_str().unwrap()]).await;
    }
    let later = bench.read_at("detect_bloated_indexes", arguments, &[output], now()).await.value;
    assert_eq!(later["bloated"], 0);
    assert_eq!(sorted(&later["closed"], "status"), ["verified", "verified"]);
}
