//! `migrate_schema` on branches of the emulator: what was tried on one is promoted, once each, whatever
//! happens.

use serde_json::Value;

use super::killing::{FAULTS, approval};
use super::shop::{Shop, execute};
use super::whole::{Cloud, Said};

/// In a transaction, and outside; each comes with what undoes it.
const FILES: [(&str, &str); 6] = [
    ("1_add.sql", "alter table public.t add column note text;"),
    ("1_add.down.sql", "alter table public.t drop column note;"),
    (
        "2_fill.sql",
        "insert into public.t (n, note) values (3, 'x'); create index t_n on public.t (n);",
    ),
    ("2_fill.down.sql", "drop index public.t_n; delete from public.t where n = 3;"),
    ("3_find.sql", "create index concurrently t_note on public.t (note);"),
    ("3_find.down.sql", "drop index concurrently if exists public.t_note;"),
];

const HOLDS: (&str, &str) = (
    "assertions",
    r#"[{"name": "there is a note", "sql": "select count(note) = 1 from public.t"}]"#,
);

impl Shop<'_> {
    /// The migrations were carried out once on each branch, and nothing is left but what keeps production
    /// as it was.
    async fn is_migrated(&self, what: &str) {
        let names = self.branches().await;
        let [production, safety, staging] = &names[..] else { panic!("{what}: {names:?}") };
        assert_eq!((&**production, &**staging), ("production", "staging"), "{what}");
        assert!(safety.starts_with("safety-"), "{what}: {safety}");
        for branch in ["production", "staging"] {
            assert_eq!(self.history(branch).await, "1,2,3", "{what}: {branch}");
            let rows: i64 = self.value(branch, "select count(*) from public.t").await;
            assert_eq!(rows, 3, "{what}: {branch}");
            let indexes = "select string_agg(c.relname, ',' order by c.relname) from pg_index i \
                           join pg_class c on c.oid = i.indexrelid \
                           where i.indrelid = 'public.t'::regclass and i.indisvalid";
            let indexes: String = self.value(branch, indexes).await;
            assert_eq!(indexes, "t_n,t_note", "{what}: {branch}");
        }
        assert_eq!(self.history(safety).await, "none", "{what}: production as it was");
        let main = self.branch("production").to_string();
        assert_eq!(self.default_branch().await, Some(main), "{what}");
        self.cloud.is_quiet(what).await;
    }

    async fn waiting(&self, command: &[String]) -> Value {
        self.cloud.run_all(command).await.ends(3);
        let waiting = self.cloud.waiting().await;
        assert_eq!(waiting.as_array().unwrap().len(), 1, "{waiting}");
        waiting[0].clone()
    }

    async fn approve(&self, waiting: &Value) -> Said {
        self.cloud.run_all(&approval(waiting)).await
    }
}

#[tokio::test]
async fn migrations_go_over_a_branch_and_staging_to_production() {
    let cloud = Cloud::start().await;
    let shop = Shop::open(&cloud, "shop", &FILES).await;
    let review = shop.waiting(&shop.migration(&[HOLDS])).await;
    assert_eq!(review["step"], "review");
    assert_eq!(shop.history("staging").await, "none", "nothing before the review");
    // What a person looks at: the rules, the difference and the statements, to be read as they are.
    let seen = cloud.run(&["approvals", review["run_id"].as_str().unwrap()]).await.ends(0).out;
    for part in [
        "\n| 1 | safe |",
        "require-concurrent-index-creation",
        "\n#### Additive (3)",
        "column `public.t.note`",
        "create index t_n on public.t (n)",
        "create index concurrently t_note",
        "Undone by the SQL that comes with it",
    ] {
        assert!(seen.contains(part), "{part:?} is missing in:\n{seen}");
    }
    assert!(!seen.contains("\\n"), "{seen}");
    shop.approve(&review).await.ends(3);
    assert_eq!(shop.history("staging").await, "1,2,3");
    assert_eq!(shop.history("production").await, "none");
    let waiting = cloud.waiting().await;
    assert_eq!(waiting[0]["step"], "production/apply", "{waiting}");
    shop.approve(&waiting[0]).await.ends(0);
    shop.is_migrated("by hand").await;
    cloud.has_succeeded("by hand").await;

    // Once more: there is nothing to do, and nobody is asked.
    cloud.run_all(&shop.migration(&[])).await.ends(0);
    shop.is_migrated("twice").await;
    cloud.stop().await;
}

#[tokio::test]
async fn killed_at_every_boundary_each_migration_happens_once() {
    let cloud = Cloud::start().await;
    let shop = Shop::open(&cloud, "shop", &FILES).await;
    let died = cloud.survives(&shop.migration(&[HOLDS]), "").await;
    shop.is_migrated("killed everywhere").await;
    cloud.has_succeeded("killed everywhere").await;
    for place in
        ["trial/make/do 0/after effect", "staging/do 1/in transaction", "safety/do 0/after effect"]
    {
        assert!(died.iter().any(|name| name == place), "{place}");
    }
    shop.close().await;
    cloud.stop().await;
}

#[tokio::test]
#[ignore = "a project for each of some two hundred boundaries: half an hour"]
async fn killed_at_one_boundary_each_migration_happens_once() {
    let cloud = Cloud::start().await;
    let shop = Shop::open(&cloud, "shop", &FILES).await;
    let died = cloud.survives(&shop.migration(&[HOLDS]), "").await;
    shop.close().await;
    for boundary in died {
        let shop = Shop::open(&cloud, "shop", &FILES).await;
        cloud.dying_at(&shop.migration(&[HOLDS]), &boundary).await.ends(0);
        shop.is_migrated(&boundary).await;
        shop.close().await;
    }
    cloud.stop().await;
}

#[tokio::test]
async fn any_fault_met_each_migration_happens_once() {
    let cloud = Cloud::start().await;
    for fault in FAULTS {
        let shop = Shop::open(&cloud, &fault.replace('_', "-"), &FILES).await;
        cloud.bears(fault, &shop.migration(&[HOLDS]), 3).await;
        shop.is_migrated(fault).await;
        shop.close().await;
    }
    cloud.has_succeeded("all faults").await;
    cloud.stop().await;
}

const UNIQUE: [(&str, &str); 4] = [
    ("1_add.sql", "alter table public.t add column note text;"),
    ("1_add.down.sql", "alter table public.t drop column note;"),
    ("2_unique.sql", "alter table public.t add constraint t_n unique (n);"),
    ("2_unique.down.sql", "alter table public.t drop constraint t_n;"),
];

/// Production changes after the review, so that the second file fails there and nowhere else; whoever
/// goes on from then dies at every boundary at which nobody died in a shop before.
async fn fails_in_production(shop: &Shop<'_>) -> Value {
    let review = shop.waiting(&shop.migration(&[])).await;
    execute(&mut shop.session("production").await, "insert into public.t values (1, 'a')").await;
    shop.approve(&review).await.ends(3);
    let waiting = shop.cloud.waiting().await;
    assert_eq!(waiting[0]["step"], "production/apply", "{waiting}");
    let run = waiting[0]["run_id"].as_str().unwrap();
    let (_, died) = shop.cloud.dying_elsewhere(&approval(&waiting[0]), "").await;
    println!("{} deaths by now", died.len());
    let ended = shop.newest().await;
    assert_eq!(ended["outcome"], "failed", "{ended:#}");
    assert_eq!(shop.history("staging").await, "1,2");
    let names = shop.branches().await;
    assert_eq!(names, ["production".to_owned(), format!("safety-{run}"), "staging".to_owned()]);
    assert_eq!(shop.history(&names[1]).await, "none", "production as it was");
    let main = shop.branch("production").to_string();
    assert_eq!(shop.default_branch().await, Some(main));
    shop.cloud.is_quiet("failed in production").await;
    ended
}

#[tokio::test]
async fn a_failure_in_production_is_undone_only_where_nothing_is_lost() {
    let cloud = Cloud::start().await;
    let column = "select count(*) from pg_attribute where attrelid = 'public.t'::regclass \
                  and attname = 'note' and not attisdropped";

    let shop = Shop::open(&cloud, "undone", &UNIQUE).await;
    fails_in_production(&shop).await;
    assert_eq!(shop.history("production").await, "");
    assert_eq!(shop.value::<i64>("production", column).await, 0, "what was added is gone");
    shop.close().await;

    // The same without the SQL that undoes the second file: it stays, for a person to look at.
    let shop = Shop::open(&cloud, "stopped", &UNIQUE[..3]).await;
    let run = fails_in_production(&shop).await;
    assert_eq!(shop.history("production").await, "1");
    assert_eq!(shop.value::<i64>("production", column).await, 1);
    let told = run.to_string();
    assert!(
        told.contains("migrations of stopped stopped in production"),
        "somebody is told: {run:#}"
    );
    shop.close().await;
    cloud.stop().await;
}

#[tokio::test]
async fn what_fails_its_test_never_leaves_its_branch() {
    let cloud = Cloud::start().await;
    let shop = Shop::open(&cloud, "shop", &FILES).await;
    let wrong = r#"[{"name": "impossible", "sql": "select count(*) = 77 from public.t"}]"#;
    let said = cloud.run_all(&shop.migration(&[("assertions", wrong)])).await.ends(1);
    assert!(said.err.contains("impossible") || said.out.contains("impossible"), "{}", said.err);
    assert_eq!(shop.branches().await, ["production", "staging"]);
    for branch in ["production", "staging"] {
        assert_eq!(shop.history(branch).await, "none", "{branch}");
    }
    cloud.is_quiet("failed its test").await;
    cloud.stop().await;
}
