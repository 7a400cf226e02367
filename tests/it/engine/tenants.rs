//! Row level security on a real server: tenants are kept apart, the owner too, and it is tried before it
//! is believed.

use std::sync::Arc;

use lakeops::engine::parts::Endpoints;
use lakeops::journal::Outcome;
use lakeops::journal::event::Decision;
use lakeops::kernel::{BoxFuture, Failure, RunId, Target};
use lakeops::plan::document::Action;
use lakeops::postgres::PgEndpoint;
use serde_json::{Value, json};

use super::kit::{Kit, plan, step, tool};
use crate::harness::{connect, execute, postgres, value};

/// What tenant `a` tries on `public.orders`, where it has rows 1 and 2 and `b` has row 3: rows, or the
/// SQLSTATE.
pub(crate) const TRIED_BY_A: [(&str, Result<u64, &str>); 7] = [
    ("select * from public.orders where tenant_id = 'b'", Ok(0)),
    ("update public.orders set item = 'x' where tenant_id = 'b'", Ok(0)),
    ("delete from public.orders where id = 3", Ok(0)),
    ("insert into public.orders values (9, 'b', 'x')", Err("42501")),
    ("update public.orders set tenant_id = 'b' where id = 1", Err("42501")),
    ("insert into public.orders values (9, 'a', 'x')", Ok(1)),
    ("update public.orders set item = 'x'", Ok(2)),
];

/// A database that may be experimented on.
struct ThrowAway(PgEndpoint);

impl Endpoints for ThrowAway {
    fn endpoint<'a>(
        &'a self,
        connection: &'a str,
        target: &'a Target,
        wake: bool,
    ) -> BoxFuture<'a, Result<PgEndpoint, Failure>> {
        self.0.endpoint(connection, target, wake)
    }

    fn throw_away<'a>(
        &'a self,
        _connection: &'a str,
        _target: &'a Target,
    ) -> BoxFuture<'a, Result<bool, Failure>> {
        Box::pin(async { Ok(true) })
    }
}

/// A shop of two tenants; its tables belong to a role that is no superuser, which works here.
struct Shop {
    admin: PgEndpoint,
    owner: PgEndpoint,
    kit: Kit,
    a: String,
    b: String,
}

impl Shop {
    async fn new(hint: &str) -> Self {
        let admin = postgres().await.fresh_database(hint).await;
        let name = |role: &str| format!("{role}_{}", admin.database());
        let (owner, a, b) = (name("shop"), name("a"), name("b"));
        execute(
            &admin,
            &[
                &format!("create role \"{owner}\" login"),
                &format!("create role \"{a}\" login"),
                &format!("create role \"{b}\" login"),
                &format!("grant \"{a}\", \"{b}\" to \"{owner}\""),
                &format!("alter database \"{}\" owner to \"{owner}\"", admin.database()),
                &format!("alter schema public owner to \"{owner}\""),
            ],
        )
        .await;
        let owner = admin.with_user(&owner, None);
        execute(
            &owner,
            &["create table public.orders (id int primary key, tenant_id text not null, item text)",
              "create index on public.orders (tenant_id)",
              "insert into public.orders values (1, 'a', 'tea'), (2, 'a', 'jam'), (3, 'b', 'rope')",
              "create table public.visits (tenant_id uuid, at timestamptz default now())"],
        )
        .await;
        let mut kit = Kit::new(owner.clone());
        kit.parts.endpoints = Arc::new(ThrowAway(owner.clone()));
        Self { admin, owner, kit, a, b }
    }

    fn configure(&self, tables: &[&str]) -> Action {
        tool("configure_rls", json!({ "shared": {"tables": tables}, "tenants": self.tenants() }))
    }

    fn prove(&self) -> Action {
        let shared = json!({"tables": ["public.orders"]});
        tool("prove_tenant_isolation", json!({ "shared": shared, "tenants": self.tenants() }))
    }

    fn tenants(&self) -> Value {
        json!([{"id": "a", "role": self.a}, {"id": "b", "role": self.b}])
    }

    /// Runs one step, approving what it asks.
    async fn run(&self, action: Action) -> (RunId, Outcome) {
        let (run, mut outcome) = self.kit.run(&plan(vec![step("do", &[], action)])).await;
        if outcome == Outcome::WaitingApproval {
            self.kit.decide(&run, Decision::Approved).await;
            outcome = self.kit.execute(&run).await;
        }
        (run, outcome)
    }

    async fn output(&self, action: Action) -> Value {
        let (run, outcome) = self.run(action).await;
        assert_eq!(outcome, Outcome::Succeeded, "{:?}", self.kit.ended(&run, "do").await);
        self.kit.output(&run, "do").await
    }

    /// What a role does for a tenant: rows, or the SQLSTATE.
    async fn as_tenant(&self, role: &str, tenant: &str, statement: &str) -> Result<u64, String> {
        let mut connection = connect(&self.owner.with_user(role, None)).await;
        let set = format!("begin; set local app.tenant_id = '{tenant}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut connection).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        let done = sqlx::query(statement).execute(&mut connection).await;
        done.map(|done| done.rows_affected())
            .map_err(|error| error.into_database_error().unwrap().code().unwrap().into_owned())
    }
}

#[tokio::test]
async fn a_tenant_neither_reads_nor_writes_rows_of_another() {
    let shop = Shop::new("rls").await;
    let output = shop.output(shop.configure(&["public.orders", "public.visits"])).await;
    assert_eq!(output["tables"][0]["ended"], "applied", "{output}");
    let exempt: Vec<_> = output["exempt_roles"].as_array().unwrap().iter().collect();
    let postgres_role: String = value(&shop.admin, "select current_user::text").await;
    assert!(exempt.iter().any(|role| role["role"] == postgres_role.as_str()), "{exempt:?}");

    let owner = shop.owner.user().to_owned();
    // The owner is held as well.
    for role in [&shop.a, &owner] {
        assert_eq!(shop.as_tenant(role, "a", "select * from public.orders").await, Ok(2));
        for (statement, expected) in TRIED_BY_A {
            let done = shop.as_tenant(role, "a", statement).await;
            assert_eq!(done, expected.map_err(str::to_owned), "{role}: {statement}");
        }
        assert_eq!(shop.as_tenant(role, "", "select * from public.orders").await, Ok(0));
    }
    // The type of the column is that of the table, so that an index serves.
    let uuid = "00000000-0000-0000-0000-000000000001";
    let insert = format!("insert into public.visits values ('{uuid}')");
    assert_eq!(shop.as_tenant(&shop.a, uuid, &insert).await, Ok(1));

    // Who is configured already is left alone.
    let again = shop.output(shop.configure(&["public.orders", "public.visits"])).await;
    assert_eq!(again["tables"], json!([]));
    let seen =
        shop.output(tool("inspect_rls", json!({"shared": {"tables": ["public.orders"]}}))).await;
    assert_eq!((&seen["isolated"], &seen["tables"][0]["forced"]), (&json!(true), &json!(true)));
    let warned = seen["tables"][0]["warnings"][0].as_str().unwrap();
    assert!(warned.contains("no policy holds"), "{seen}");
}

#[tokio::test]
async fn isolation_is_tried_as_the_tenants_and_nothing_of_it_stays() {
    let shop = Shop::new("rls_proof").await;
    // Before: every check that can be broken is broken, and found so.
    let grant = format!("grant all on public.orders to \"{}\", \"{}\"", shop.a, shop.b);
    execute(&shop.owner, &[&grant]).await;
    let before = shop.output(shop.prove()).await;
    assert_eq!((&before["isolated"], &before["broken"]), (&json!(false), &json!(true)), "{before}");
    let verdicts = |output: &Value| -> Vec<String> {
        let checks = output["checks"].as_array().unwrap().iter();
        checks.map(|one| one["verdict"].as_str().unwrap().to_owned()).collect()
    };
    assert!(verdicts(&before).iter().filter(|one| *one == "broken").count() >= 6, "{before}");
    assert_eq!(value::<i64>(&shop.admin, "select count(*) from public.orders").await, 3);

    shop.output(shop.configure(&["public.orders"])).await;
    let after = shop.output(shop.prove()).await;
    assert_eq!(after["isolated"], true, "{after}");
    assert!(verdicts(&after).iter().all(|one| one == "holds"), "{after}");
    assert_eq!(after["checks"].as_array().unwrap().len(), 8);
    assert_eq!(value::<i64>(&shop.admin, "select count(*) from public.orders").await, 3);

    // Without rows nothing is proven.
    execute(&shop.admin, &["truncate public.orders"]).await;
    let empty = shop.output(shop.prove()).await;
    assert_eq!((&empty["isolated"], &empty["broken"]), (&json!(false), &json!(false)), "{empty}");
    assert!(verdicts(&empty).iter().all(|one| one == "not_measured"), "{empty}");
}

#[tokio::test]
async fn what_weakens_the_isolation_is_said_or_refused() {
    let shop = Shop::new("rls_weak").await;
    execute(
        &shop.owner,
        &[
            "create policy everybody on public.orders using (true)",
            "create policy tenant_isolation on public.visits using (true)",
        ],
    )
    .await;
    let (run, outcome) = shop.run(shop.configure(&["public.visits"])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(shop.kit.ended(&run, "do").await.1, "isolation::other_policy");
    let output = shop.output(shop.configure(&["public.orders"])).await;
    let warning = output["tables"][0]["warnings"][0].as_str().unwrap();
    assert!(warning.contains("other policies let rows through as well: everybody"), "{output}");
    let proof = shop.output(shop.prove()).await;
    assert_eq!(proof["broken"], true, "{proof}");

    execute(&shop.admin, &[&format!("alter role \"{}\" bypassrls", shop.a)]).await;
    let (run, _) = shop.run(shop.configure(&["public.orders"])).await;
    assert_eq!(shop.kit.ended(&run, "do").await.1, "isolation::exempt_tenant");
}

#[tokio::test]
async fn it_is_undone_to_what_was_there() {
    let shop = Shop::new("rls_undo").await;
    let check = step("check", &["do"], super::undoing::failing_verify());
    let configure = step("do", &[], shop.configure(&["public.orders"]));
    let (run, outcome) = shop.kit.run(&plan(vec![configure, check])).await;
    assert_eq!(outcome, Outcome::WaitingApproval);
    shop.kit.decide(&run, Decision::Approved).await;
    assert_eq!(shop.kit.execute(&run).await, Outcome::Failed);
    let left = "select relrowsecurity or relforcerowsecurity or exists (select from pg_policy) \
                from pg_class where oid = 'public.orders'::regclass";
    assert!(!value::<bool>(&shop.admin, left).await);
    let privileges = format!("select has_table_privilege('{}', 'public.orders', 'select')", shop.a);
    assert!(!value::<bool>(&shop.admin, &privileges).await);
}

#[tokio::test]
async fn an_experiment_runs_where_nothing_can_be_lost_and_leaves_nothing() {
    let shop = Shop::new("experiment").await;
    let statements = [
        "insert into public.orders values (7, 'a', 'x') returning id",
        "select current_user::text as who, current_setting('app.tenant_id') as tenant",
        "select 1/0",
        "select 2",
    ];
    let with = json!({"statements": statements, "role": shop.owner.user(),
        "settings": {"app.tenant_id": "a"}});
    let output = shop.output(tool("experiment_sql", with.clone())).await;
    let seen = output["statements"].as_array().unwrap();
    assert_eq!(seen.len(), 3, "the last was not tried: {output}");
    assert_eq!(seen[0]["returned"], json!([{"id": 7}]));
    assert_eq!(seen[1]["returned"], json!([{"who": shop.owner.user(), "tenant": "a"}]));
    assert_eq!(seen[2]["sqlstate"], "22012");
    assert_eq!(value::<i64>(&shop.admin, "select count(*) from public.orders").await, 3);

    let elsewhere = Kit::new(shop.owner.clone());
    let (run, outcome) =
        elsewhere.run(&plan(vec![step("do", &[], tool("experiment_sql", with))])).await;
    assert_eq!(outcome, Outcome::Failed);
    assert_eq!(elsewhere.ended(&run, "do").await.1, "experiment::not_throw_away");
}
