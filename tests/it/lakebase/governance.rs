//! The tenants of `provision_with_governance`: tried on a branch as themselves, approved, and kept apart.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};

use super::killing::run;
use super::shop::{Shop, execute};
use super::whole::Cloud;
use crate::engine::tenants::TRIED_BY_A;

const TENANTS: &str = r#"[{"id": "a", "role": "tenant_a"}, {"id": "b", "role": "tenant_b"}]"#;

/// Tables of a role that has neither `SUPERUSER` nor `BYPASSRLS`, and tenants with roles of their own.
const TABLES: &str = "
    create role shop_owner nologin;
    create role tenant_a nologin;
    create role tenant_b nologin;
    grant shop_owner, tenant_a, tenant_b to current_user;
    grant create, usage on schema public to shop_owner;
    create table public.orders (id int primary key, tenant_id text not null, item text);
    create index on public.orders (tenant_id);
    insert into public.orders values (1, 'a', 'tea'), (2, 'a', 'jam'), (3, 'b', 'rope');
    create table public.visits (tenant_id text not null, at timestamptz not null default now());
    create index on public.visits (tenant_id);
    insert into public.visits values ('a'), ('b'), ('b');
    alter table public.orders owner to shop_owner;
    alter table public.visits owner to shop_owner";

/// Where processes die: everywhere but between the changes of the proof. Those are sixteen of one kind, each
/// rolled back; what is journaled between two of them depends on nothing that differs, and dying before,
/// after and between three of them is dying there.
const DEADLY: &str = "tenants/look|tenants/make|tenants/usable|tenants/trial|tenants/isolate|\
                      tenants/proof/changes_proposed|tenants/proof/do 0/|tenants/proof/do 7/|\
                      tenants/proof/do 15/|change_started do 7/|change_settled do 15|\
                      tenants/proven|tenants/always";

fn govern(project: &str) -> Vec<String> {
    let tables = ("tenant_tables", r#"["public.orders", "public.visits"]"#);
    let shape = ("shape", r#"{"tags":{"disposable":"true"}}"#);
    run("provision_with_governance", &[("project", project), shape, ("tenants", TENANTS), tables])
}

/// What a role does for a tenant: rows, or the SQLSTATE. Nothing of it stays.
async fn as_tenant(
    session: &mut PgConnection,
    (role, tenant): (&str, &str),
    statement: &str,
) -> Result<u64, String> {
    let begin = format!("begin; set local role {role}; set local app.tenant_id = '{tenant}'");
    execute(session, &begin).await;
    let done = sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&mut *session).await;
    execute(session, "rollback").await;
    done.map(|done| done.rows_affected())
        .map_err(|error| error.into_database_error().unwrap().code().unwrap().into_owned())
}

#[tokio::test]
async fn tenants_are_kept_apart_after_a_trial_and_an_approval() {
    let cloud = Cloud::start().await;
    let first = run("provision_with_governance", &[("project", "shop")]);
    cloud.run_all(&first).await.ends(0);
    let shop = Shop { cloud: &cloud, project: "shop".to_owned() };
    let mut session = shop.session("production").await;
    execute(&mut session, TABLES).await;

    // Who asks is told who looked and what will be done; each death is survived.
    let died = cloud.survives(&govern("shop"), DEADLY).await;
    for (step, when) in [
        ("tenants/trial", "in transaction"),
        ("tenants/isolate", "after effect"),
        ("tenants/proof/do 15/", "after effect"),
        ("tenants/proof/", "change_started do 7/after commit"),
    ] {
        let is_there = |name: &String| name.starts_with(step) && name.ends_with(when);
        assert!(died.iter().any(is_there), "{step} {when}: {died:?}");
    }
    cloud.is_quiet("governed").await;
    cloud.has_succeeded("governed").await;
    assert_eq!(shop.branches().await, ["development", "production", "staging"]);

    let proof = shop.output("tenants/proof").await;
    assert_eq!((&proof["isolated"], &proof["broken"]), (&json!(true), &json!(false)), "{proof:#}");
    let told = shop.output("tenants").await;
    let exempt = told["exempt_roles"].as_array().unwrap();
    let user = exempt.iter().find(|role| role["role"] == cloud.user());
    let user = user.unwrap_or_else(|| panic!("{exempt:?}"));
    assert_eq!((&user["bypass"], &user["superuser"]), (&json!(true), &json!(false)));
    assert!(!exempt.iter().any(|role| role["role"] == "shop_owner"), "{exempt:?}");

    for role in ["tenant_a", "shop_owner"] {
        let visits = as_tenant(&mut session, (role, "a"), "select * from public.visits").await;
        assert_eq!(visits, Ok(1), "{role}");
        for (statement, expected) in TRIED_BY_A {
            let done = as_tenant(&mut session, (role, "a"), statement).await;
            assert_eq!(done, expected.map_err(str::to_owned), "{role}: {statement}");
        }
        let nobody = as_tenant(&mut session, (role, ""), "select * from public.orders").await;
        assert_eq!(nobody, Ok(0), "{role}");
    }
    // Who has BYPASSRLS sees all: that is why it is reported.
    let all: i64 = sqlx::query_scalar("select count(*) from public.orders")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(all, 3);
    cloud.stop().await;
}

#[tokio::test]
async fn what_lets_a_tenant_through_is_found_on_the_branch_and_production_is_left_alone() {
    let cloud = Cloud::start().await;
    let shop = Shop::open(&cloud, "shop", &[]).await;
    let mut session = shop.session("production").await;
    execute(&mut session, TABLES).await;
    let leak = "create policy everybody on public.orders using (true); \
                create table public.mine (tenant_id text not null); \
                insert into public.mine values ('a'), ('b')";
    execute(&mut session, leak).await;
    let isolate = |tables: &str, tenants: &str| {
        run("isolate_tenants", &[("project", "shop"), ("tables", tables), ("tenants", tenants)])
    };
    let is_untouched = async || {
        let forced = "select bool_or(relrowsecurity) from pg_class where relnamespace = 'public'::regnamespace";
        assert!(!shop.value::<bool>("production", forced).await);
        assert_eq!(shop.branches().await, ["production", "staging"]);
    };
    let said = cloud.going_on(&isolate(r#"["public.orders"]"#, TENANTS)).await.ends(1);
    assert!(said.out.contains("steps.proof.broken"), "{}", said.out);
    let proof = shop.output("proof").await;
    let is_broken = |one: &&Value| one["verdict"] == "broken";
    let broken = proof["checks"].as_array().unwrap().iter().find(is_broken).unwrap().clone();
    assert_eq!(broken["check"], "reach", "{proof:#}");
    is_untouched().await;

    // Tables of somebody who has BYPASSRLS: that the owner sees all is no leak of theirs, and is said.
    let said = cloud.going_on(&isolate(r#"["public.mine"]"#, TENANTS)).await;
    said.ends(0);
    let checks = shop.output("proof").await["checks"].clone();
    let owner = checks.as_array().unwrap().iter().find(|one| one["check"] == "owner").unwrap();
    assert_eq!(owner["verdict"], "not_measured", "{checks:#}");
    assert!(owner["seen"].as_str().unwrap().contains("BYPASSRLS"), "{owner}");

    // Tenants without roles of their own would be tried by somebody whom no policy holds.
    let nobody = r#"[{"id": "a"}, {"id": "b"}]"#;
    let said = cloud.going_on(&isolate(r#"["public.visits"]"#, nobody)).await.ends(1);
    assert!(said.out.contains("isolation::exempt_tenant"), "{}", said.out);
    cloud.stop().await;
}
