//! Traces by OTLP: `cargo test --features otel --test it serve::telemetry`.

use super::alerts::Receiver;
use super::project;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_and_its_steps_become_spans() {
    let project = project("serve_traces", "").await;
    let collector = Receiver::at("127.0.0.1:0", 0, false);
    let mut command = project.command(&["run", "insert"]);
    command
        .env("API_TOKEN", super::TOKEN)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address));
    assert!(command.status().unwrap().success());
    let taken = collector.taken();
    let text: String = taken.iter().map(|taken| taken.body.as_str()).collect();
    for part in ["lakeops", "run", "step", "insert"] {
        assert!(text.contains(part), "{part}: {text:?}");
    }
    assert!(!text.contains("insert into"), "spans say nothing of statements");
}
