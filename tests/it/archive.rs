//! Cold rows leave their table and come back, and at every moment each is seen once.

use std::path::Path;
use std::sync::Arc;

use lakeops::config::Settings;
use lakeops::engine::parts::History as _;
use lakeops::history::{HistoryWriter, Location};
use lakeops::journal::SqliteJournal;
use lakeops::journal::event::Event;
use lakeops::kernel::kill::Unarmed;
use lakeops::kernel::{ChangeSet, Failure, Query, Redactor, SystemClock, Target};
use lakeops::plan::document::ForEach;
use lakeops::plan::{Plan, PlannedStep};
use lakeops::postgres::{PgEndpoint, PgReader};
use lakeops::tools::context::ReadHistory;
use lakeops::tools::tool::HistoryRow;
use lakeops::tools::{AnyTool, Catalog, ReadContext};
use serde_json::{Value, json};

use crate::cli::Project;
use crate::engine::kit::{plan, step, tool};
use crate::harness::crash::{Crash, End};
use crate::harness::{execute, postgres, value};

/// Twenty-five rows of every type that JSON could spoil, fifteen of them old.
const ORDERS: [&str; 2] = [
    "create table orders (shop varchar(9), id bigint, amount numeric, at timestamptz, \
     payload bytea, notes jsonb, tags text[], twice numeric generated always as (amount * 2) stored, \
     updated_at timestamptz, primary key (shop, id))",
    "insert into orders (shop, id, amount, at, payload, notes, tags, updated_at) select 'nl', 9007199254740993 + g, 12345678901234567890.123456789 + g, \
     timestamptz '2020-01-01 00:00:00.123456Z', decode(md5(g::text), 'hex'), \
     jsonb_build_object('n', 1e300, 'o\"dd', g), array['a,b', null, 'c'], \
     case when g <= 15 then now() - interval '1 year' else now() end from generate_series(1, 25) g",
];

async fn database(hint: &str) -> PgEndpoint {
    let endpoint = postgres().await.fresh_database(hint).await;
    execute(&endpoint, &ORDERS).await;
    endpoint
}

fn archiving() -> Plan {
    plan(archiving_of("public.orders", 10))
}

fn archiving_of(table: &str, batch_rows: u32) -> Vec<PlannedStep> {
    let asked = json!({ "table": table, "older_than": "30d", "batch_rows": batch_rows });
    let batch = json!({
        "table": table,
        "column": "${{ steps.plan.column }}",
        "cut_off": "${{ steps.plan.cut_off }}",
        "after": "${{ item.after }}",
        "upto": "${{ item.upto }}",
    });
    let mut archive = step("archive", &["plan"], tool("archive_cold_data_to_delta", batch));
    archive.for_each = Some(ForEach {
        items: json!("${{ steps.plan.batches }}"),
        key: "${{ item.name }}".to_owned(),
        max_parallel: 1,
        fail_fast: true,
    });
    vec![step("plan", &[], tool("plan_archive", asked)), archive]
}

/// Goes on to the end, and says why when it is not a good one.
async fn finished(crash: &Crash) {
    let outcome = crash.finish();
    if outcome != "succeeded" {
        let failures = crash.entries().await.into_iter().filter_map(|entry| match entry.event {
            Event::AttemptFailed { failure, .. } => Some(failure.message),
            _ => None,
        });
        panic!("{outcome}: {:?}", failures.collect::<Vec<_>>());
    }
}

/// Looks at a database and the history of a state directory, as tools do.
struct Eyes {
    endpoint: PgEndpoint,
    history: HistoryWriter,
}

impl Eyes {
    fn new(endpoint: &PgEndpoint, state: &Path) -> Self {
        let journal =
            SqliteJournal::open(state, Arc::new(SystemClock), Redactor::default()).unwrap();
        let location = Location::folder(&state.join("history")).unwrap();
        let outside = (Arc::new(SystemClock) as Arc<_>, Arc::new(Unarmed) as Arc<_>);
        let history = HistoryWriter::new(location, journal, state, outside);
        Self { endpoint: endpoint.clone(), history }
    }

    async fn with<T>(&self, look: impl AsyncFnOnce(&ReadContext<'_>) -> T) -> T {
        static NOWHERE: Target = Target { project: None, branch: None, database: None };
        let settings = Settings::default();
        let reader = PgReader::new(self.endpoint.clone(), &settings.limits, "lakeops:test");
        let cx = ReadContext {
            history: Some(&self.history as &dyn ReadHistory),
            ..ReadContext::new(&reader, &SystemClock, &settings, &NOWHERE)
        };
        let found = look(&cx).await;
        reader.close().await;
        found
    }

    async fn read(&self, name: &str, arguments: Value) -> Value {
        let AnyTool::Read(tool) = Catalog::builtin().find(name).unwrap() else { panic!("{name}") };
        let output = self.with(async |cx| tool.read(cx, arguments).await).await;
        output.unwrap_or_else(|failure| panic!("{failure:?}")).value
    }

    async fn refusal(&self, name: &str, arguments: Value) -> Failure {
        let AnyTool::Read(tool) = Catalog::builtin().find(name).unwrap() else { panic!("{name}") };
        self.with(async |cx| tool.read(cx, arguments).await).await.unwrap_err()
    }

    async fn propose(&self, name: &str, arguments: Value) -> Result<ChangeSet, Failure> {
        let AnyTool::Write(tool) = Catalog::builtin().find(name).unwrap() else { panic!("{name}") };
        self.with(async |cx| tool.propose(cx, arguments).await).await
    }

    /// Every row that is seen, hot or cold, in order; with how many of them are cold.
    async fn seen(&self) -> (Vec<String>, u64) {
        self.seen_of("public.orders").await
    }

    async fn seen_of(&self, table: &str) -> (Vec<String>, u64) {
        let found = self.read("read_unified_rows", json!({ "table": table })).await;
        let rows = found["rows"].as_array().unwrap();
        let mut rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
        rows.sort();
        (rows, found["cold_rows"].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_anywhere_each_row_is_seen_once() {
    let endpoint = database("archive").await;
    let text = "select string_agg(o::text, '|' order by id) from orders o";
    let whole: String = value(&endpoint, text).await;
    let calm = Crash::remembering(&archiving(), &endpoint);
    let (before, _) = Eyes::new(&endpoint, &calm.state()).seen().await;
    finished(&calm).await;
    let mut boundaries = calm.boundaries();
    boundaries
        .retain(|name| name.starts_with("archive[batch_00001]") || name.contains("archived_rows"));
    let eyes = Eyes::new(&endpoint, &calm.state());
    assert_eq!(eyes.seen().await, (before, 15));
    assert_eq!(value::<i64>(&endpoint, "select count(*) from orders").await, 10);

    // And back, to the last digit.
    let restore =
        step("restore", &[], tool("restore_archived_data", json!({"table": "public.orders"})));
    std::fs::write(calm.state().join("../plan.json"), plan(vec![restore]).to_bytes().unwrap())
        .unwrap();
    drop(eyes);
    let key = calm.state().join("../key");
    std::fs::write(key, "restore").unwrap();
    assert_eq!(calm.finish(), "succeeded");
    assert_eq!(value::<String>(&endpoint, text).await, whole);
    assert_eq!(Eyes::new(&endpoint, &calm.state()).seen().await.1, 0);

    boundaries.dedup();
    assert!(boundaries.len() > 15, "{boundaries:?}");
    for (place, boundary) in boundaries.iter().enumerate() {
        let endpoint = database("archive").await;
        let crash = Crash::remembering(&archiving(), &endpoint);
        std::fs::create_dir_all(crash.state()).unwrap();
        let (before, _) = Eyes::new(&endpoint, &crash.state()).seen().await;
        let end = crash.run_until_place(&boundaries, place);
        assert_eq!(end, End::Killed, "{boundary}");
        let now = Eyes::new(&endpoint, &crash.state()).seen().await.0;
        assert_eq!(now, before, "killed at {boundary}");
        assert_eq!(crash.finish(), "succeeded", "after {boundary}");
        let eyes = Eyes::new(&endpoint, &crash.state());
        assert_eq!(eyes.seen().await, (before, 15), "resumed after {boundary}");
        assert_eq!(value::<i64>(&endpoint, "select count(*) from orders").await, 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_changes_after_it_was_copied_stays_hot() {
    let endpoint = database("changed").await;
    let crash = Crash::remembering(&archiving(), &endpoint);
    assert_eq!(crash.run_until("history/archived_rows/after append", 1), End::Killed);
    let first = "(select min(id) from orders)";
    execute(
        &endpoint,
        &[
            &format!("update orders set amount = 1 where id = {first}"),
            // Changed and changed back: another version all the same.
            &format!("update orders set amount = amount + 1 where id = {first} + 1"),
            &format!("update orders set amount = amount - 1 where id = {first} + 1"),
        ],
    )
    .await;
    let eyes = Eyes::new(&endpoint, &crash.state());
    let (before, _) = eyes.seen().await;
    drop(eyes);
    assert_eq!(crash.finish(), "succeeded");
    let eyes = Eyes::new(&endpoint, &crash.state());
    let (after, cold) = eyes.seen().await;
    assert_eq!((after, cold), (before, 13), "two of fifteen stayed");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from orders where amount = 1").await, 1);
    let kept: i64 =
        value(&endpoint, "select sum(cardinality(kept_hot)) from lakeops.archived_batch").await;
    assert_eq!(kept, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cold_row_is_left_out_in_silence() {
    let endpoint = database("silence").await;
    let crash = Crash::remembering(&archiving(), &endpoint);
    std::fs::create_dir_all(crash.state()).unwrap();
    let (before, _) = Eyes::new(&endpoint, &crash.state()).seen().await;
    let all = |source: &str| {
        let mut project = Project::new();
        project.url = Some(endpoint.to_url().expose().clone());
        let state = crash.state().display().to_string();
        let sql = format!("select * from {source}.public.orders order by id");
        project.json(&["--state", &state, "history", "query", &sql])
    };
    let hot = all("pg");
    assert_eq!(hot.as_array().unwrap().len(), 25);
    finished(&crash).await;
    // One query sees both sides, to the last digit that the table itself shows there.
    assert_eq!(all("pg").as_array().unwrap().len(), 10);
    assert_eq!(all("unified"), hot);
    let eyes = Eyes::new(&endpoint, &crash.state());
    // Copies that nobody sees, of batches that never left the table, and many more than are asked for.
    let copy = |number: u32| HistoryRow {
        table: "archived_rows".to_owned(),
        row: json!({"source_table": "public.orders", "batch_id": "a", "row_key": format!("[\"{number}\"]"),
            "row_hash": 1, "row": "{}"}),
    };
    eyes.history.archive("a", (0..200).map(copy).collect()).await.unwrap();
    let asked = json!({ "table": "public.orders", "most_rows": 25 });
    let found = eyes.read("read_unified_rows", asked).await;
    let mut rows: Vec<_> =
        found["rows"].as_array().unwrap().iter().map(ToString::to_string).collect();
    rows.sort();
    assert_eq!((rows, &found["cold_rows"]), (before, &json!(15)));
    let counted = json!({ "table": "public.orders", "count_only": true });
    let found = eyes.read("read_unified_rows", counted.clone()).await;
    assert_eq!((&found["hot_rows"], &found["cold_rows"]), (&json!(10), &json!(15)));
    let few = json!({ "table": "public.orders", "most_rows": 24 });
    assert_eq!(eyes.refusal("read_unified_rows", few).await.code, "archive::too_many_rows");
    // Another history than the one that the rows are in.
    let elsewhere = tempfile::tempdir().unwrap();
    let eyes = Eyes::new(&endpoint, elsewhere.path());
    for arguments in [json!({ "table": "public.orders" }), counted] {
        let failure = eyes.refusal("read_unified_rows", arguments).await;
        assert_eq!(failure.code, "archive::copies_missing", "{failure}");
    }
    let whole = eyes.propose("restore_archived_data", json!({ "table": "public.orders" })).await;
    assert_eq!(whole.unwrap_err().code, "archive::copies_missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_point_at_is_not_archived() {
    let endpoint = database("pointed").await;
    execute(
        &endpoint,
        &[
            "create table items (id int primary key, shop varchar(9), order_id bigint, \
             constraint items_order foreign key (shop, order_id) references orders (shop, id) on delete cascade)",
            "insert into items select 1, shop, id from orders order by id limit 1",
        ],
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let eyes = Eyes::new(&endpoint, dir.path());
    let planned =
        eyes.read("plan_archive", json!({"table": "public.orders", "older_than": "30d"})).await;
    assert_eq!((&planned["total_rows"], &planned["column"]), (&json!(15), &json!("updated_at")));
    let batch = &planned["batches"][0];
    let arguments = json!({
        "table": "public.orders", "column": planned["column"], "cut_off": planned["cut_off"],
        "upto": batch["upto"],
    });
    let failure = eyes.propose("archive_cold_data_to_delta", arguments.clone()).await.unwrap_err();
    assert_eq!(failure.code, "archive::referenced");
    assert!(failure.message.contains("`public.items` (constraint `items_order`)"), "{failure}");
    execute(&endpoint, &["delete from items"]).await;
    let set = eyes.propose("archive_cold_data_to_delta", arguments).await.unwrap();
    let kinds: Vec<_> = set.changes.iter().map(|change| change.operation.kind()).collect();
    assert_eq!(kinds, ["sql", "archive", "from_archive"]);
    // What cannot be named cannot be archived.
    execute(&endpoint, &["create table nameless (updated_at timestamptz)"]).await;
    let failure = eyes.refusal("plan_archive", json!({"table": "public.nameless"})).await;
    assert_eq!(failure.code, "archive::no_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_batches_has_no_cap_and_no_lists_of_rows() {
    let endpoint = postgres().await.fresh_database("stream").await;
    execute(
        &endpoint,
        &["create table events (id bigint primary key, what text, at timestamptz)",
          "insert into events select g, 'event ' || g, now() - interval '1 year' from generate_series(1, 150000) g",
          "create table few (id bigint primary key, what text, at timestamptz)",
          "insert into few select * from events where id <= 9000"],
    )
    .await;
    let dir = tempfile::tempdir().unwrap();
    let eyes = Eyes::new(&endpoint, dir.path());
    let asked = json!({ "table": "public.events", "older_than": "30d" });
    let planned = eyes.read("plan_archive", asked).await;
    let batches = planned["batches"].as_array().unwrap();
    assert_eq!((&planned["total_rows"], batches.len()), (&json!(150_000), 30));
    // What is proposed for a batch is as small for thousands of rows as for one.
    let batch = &batches[7];
    let arguments = json!({
        "table": "public.events", "column": planned["column"], "cut_off": planned["cut_off"],
        "after": batch["after"], "upto": batch["upto"],
    });
    let set = eyes.propose("archive_cold_data_to_delta", arguments).await.unwrap();
    let bytes = serde_json::to_vec(&set).unwrap().len();
    assert!(bytes < 8_000, "{bytes} bytes for 5000 rows");

    let crash = Crash::remembering(&plan(archiving_of("public.few", 3_000)), &endpoint);
    assert_eq!(crash.run_until("archive[batch_00002]/do 1/in transaction", 1), End::Killed);
    finished(&crash).await;
    let eyes = Eyes::new(&endpoint, &crash.state());
    let counted = json!({ "table": "public.few", "count_only": true });
    let found = eyes.read("read_unified_rows", counted).await;
    assert_eq!((&found["hot_rows"], &found["cold_rows"]), (&json!(0), &json!(9_000)));
    let whole = eyes.read("read_unified_rows", json!({ "table": "public.few" })).await;
    let whole = whole["rows"].as_array().unwrap();
    let ids: std::collections::BTreeSet<_> =
        whole.iter().map(|row| row["id"].as_i64().unwrap()).collect();
    assert_eq!((whole.len(), ids.first(), ids.last()), (9_000, Some(&1), Some(&9_000)));
}

/// Three partitions: two are cold as a whole, of the third one row is.
const PARTED: [&str; 6] = [
    "create table parted (id bigint, what text, updated_at timestamptz, primary key (id, updated_at)) \
     partition by range (updated_at)",
    "create table parted_a partition of parted for values from (minvalue) to ('2020-01-01Z')",
    "create table parted_b partition of parted for values from ('2020-01-01Z') to ('2021-01-01Z')",
    "create table parted_c partition of parted for values from ('2021-01-01Z') to (maxvalue)",
    "insert into parted select g, 'a', timestamptz '2019-05-05Z' from generate_series(1, 4) g",
    "insert into parted values (5, 'b', '2020-05-05Z'), (6, 'c', '2021-05-05Z'), (7, 'c', now())",
];

const ATTACHED: &str = "select count(*) from pg_inherits where inhparent = 'parted'::regclass";

async fn parted() -> PgEndpoint {
    let endpoint = postgres().await.fresh_database("parted").await;
    execute(&endpoint, &PARTED).await;
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn cold_partitions_are_archived_detached_and_come_back() {
    let detached = json!({
        "table": "public.parted", "column": "updated_at", "cut_off": "${{ steps.plan.cut_off }}",
    });
    let mut steps = archiving_of("public.parted", 3);
    steps.push(step("detach", &["archive"], tool("detach_cold_partitions", detached)));
    let whole = plan(steps);
    let endpoint = parted().await;
    let calm = Crash::remembering(&whole, &endpoint);
    std::fs::create_dir_all(calm.state()).unwrap();
    let (before, _) = Eyes::new(&endpoint, &calm.state()).seen_of("public.parted").await;
    finished(&calm).await;
    let mut boundaries = calm.boundaries();
    boundaries
        .retain(|name| name.starts_with("detach/") || name.starts_with("archive[batch_00002]"));
    boundaries.dedup();
    assert!(boundaries.len() > 8, "{boundaries:?}");
    let eyes = Eyes::new(&endpoint, &calm.state());
    assert_eq!(eyes.seen_of("public.parted").await, (before.clone(), 6));
    assert_eq!(value::<i64>(&endpoint, ATTACHED).await, 1, "two are cold as a whole");
    assert_eq!(value::<i64>(&endpoint, "select count(*) from parted").await, 1);
    // Without its partition a row has no place, and says so; with it all come back.
    let back = json!({ "table": "public.parted" });
    assert_eq!(eyes.propose("restore_archived_data", back.clone()).await.unwrap().changes.len(), 2);
    drop(eyes);
    execute(
        &endpoint,
        &["alter table parted attach partition parted_a for values from (minvalue) to ('2020-01-01Z')",
          "alter table parted attach partition parted_b for values from ('2020-01-01Z') to ('2021-01-01Z')"],
    )
    .await;
    let restore = plan(vec![step("restore", &[], tool("restore_archived_data", back))]);
    std::fs::write(calm.state().join("../plan.json"), restore.to_bytes().unwrap()).unwrap();
    std::fs::write(calm.state().join("../key"), "restore").unwrap();
    assert_eq!(calm.finish(), "succeeded");
    let eyes = Eyes::new(&endpoint, &calm.state());
    assert_eq!(eyes.seen_of("public.parted").await, (before, 0));

    for (place, boundary) in boundaries.iter().enumerate() {
        let endpoint = parted().await;
        let crash = Crash::remembering(&whole, &endpoint);
        std::fs::create_dir_all(crash.state()).unwrap();
        let (before, _) = Eyes::new(&endpoint, &crash.state()).seen_of("public.parted").await;
        let end = crash.run_until_place(&boundaries, place);
        // The run may be over before its last step has noticed that its end is recorded.
        let is_last = place + 1 == boundaries.len() && boundary.ends_with("/after commit");
        assert!(end == End::Killed || is_last, "{boundary}");
        let now = Eyes::new(&endpoint, &crash.state()).seen_of("public.parted").await.0;
        assert_eq!(now, before, "killed at {boundary}");
        assert_eq!(crash.finish(), "succeeded", "after {boundary}");
        let eyes = Eyes::new(&endpoint, &crash.state());
        assert_eq!(eyes.seen_of("public.parted").await, (before, 6), "resumed after {boundary}");
        assert_eq!(value::<i64>(&endpoint, ATTACHED).await, 1, "{boundary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_in_postgresql_shows_what_was_there_before() {
    let endpoint = database("view").await;
    let text = "select string_agg(o::text, '|' order by id) from orders o";
    let whole: String = value(&endpoint, text).await;
    let crash = Crash::remembering(&archiving(), &endpoint);
    finished(&crash).await;
    let eyes = Eyes::new(&endpoint, &crash.state());
    let asked = json!({ "table": "public.orders", "foreign_table": "lake.copies" });
    let failure = eyes.propose("create_unified_access_view", asked.clone()).await.unwrap_err();
    assert_eq!(failure.code, "unified_view::no_foreign_table");
    let none = json!({ "table": "public.orders" });
    let failure = eyes.propose("create_unified_access_view", none).await.unwrap_err();
    assert!(failure.help.unwrap().contains("unified.public.orders"));
    // A foreign table that nobody can read, and beside it an ordinary one with what it would show.
    let sql = "select source_table, batch_id, row_key, row from archived_rows";
    let query = Query::new(sql);
    let copies = eyes.with(async |cx| cx.history().unwrap().query(&query).await.unwrap()).await;
    let columns = "source_table text, batch_id text, row_key text, row text";
    let literal = json!(copies).to_string().replace('\'', "''");
    execute(
        &endpoint,
        &[
            "create schema lake",
            "create foreign data wrapper nothing",
            "create server nowhere foreign data wrapper nothing",
            &format!("create foreign table lake.copies ({columns}) server nowhere"),
            &format!("create table copies as select * from jsonb_to_recordset('{literal}') as c ({columns})"),
        ],
    )
    .await;
    let set = eyes.propose("create_unified_access_view", asked).await.unwrap();
    let made = set.changes[0].operation.statements()[0].text.as_str();
    execute(&endpoint, &[&made.replace("\"lake\".\"copies\"", "public.copies")]).await;
    let seen = text.replace("orders o", "vw_orders_unified o");
    assert_eq!(value::<String>(&endpoint, &seen).await, whole);
}
