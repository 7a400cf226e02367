//! Others read the tables as they are: the Python package `deltalake`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::kit::{Kit, metric};

const PACKAGE: &str = "deltalake==1.6.2";

const READ: &str = r#"
import json, sys
from deltalake import DeltaTable, QueryBuilder
table = DeltaTable(sys.argv[1])
answer = QueryBuilder().register("t", table).execute(sys.argv[2]).read_all()
print(json.dumps({
    "rows": {name: [str(value) for value in answer.column(name).to_pylist()] for name in answer.column_names},
    "partitions": table.metadata().partition_columns,
    "fields": {field.name: field.type.type for field in table.schema().fields},
    "protocol": [table.protocol().min_reader_version, table.protocol().min_writer_version],
}))
"#;

/// A Python that has the package; `None`, and loudly, where it cannot be had.
fn python() -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace("==", "-"));
    let python = home.join("bin/python");
    let has_package = |python: &Path| {
        let found = Command::new(python).args(["-c", "import deltalake"]).output();
        found.is_ok_and(|output| output.status.success())
    };
    if has_package(&python) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&home).output();
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE];
    let got = made.and_then(|_| Command::new(&python).args(pip).output());
    if has_package(&python) {
        return Some(python);
    }
    eprintln!("SKIPPED: {PACKAGE} cannot be had: {got:?}");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_package_reads_what_we_write() {
    let Some(python) = python() else { return };
    let kit = Kit::new();
    kit.run("aaaaaaaaaaaaaaaa", vec![metric("one", 1.0), metric("two", 2.5)]).await;
    kit.writer().append_owed().await.unwrap();
    let sql = "select metric_name, metric_value, project_id, day = cast(recorded_at as date) as same_day \
               from t order by metric_name";
    let output = Command::new(python)
        .args(["-c", READ])
        .arg(kit.folder().join("lakebase_metrics"))
        .arg(sql)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json!({
        "metric_name": ["one", "two"], "metric_value": ["1.0", "2.5"],
        "project_id": ["shop", "shop"], "same_day": ["True", "True"],
    });
    assert_eq!(read["rows"], expected);
    assert_eq!(read["partitions"], json!(["day"]));
    // The oldest protocol that there is: no deletion vectors, no column mapping.
    assert_eq!(read["protocol"], json!([1, 2]));
    let of = |name: &str| read["fields"][name].as_str().unwrap_or("none").to_owned();
    let types =
        ["metric_id", "metric_value", "snapshot_timestamp", "day", "threshold_level"].map(of);
    assert_eq!(types, ["string", "double", "timestamp", "date", "string"]);
}
