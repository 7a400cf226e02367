//! What the client sends, waits for, and makes of answers.

use std::time::Duration;

use lakeops::kernel::{ApiCall, RetryClass};
use lakeops::lakebase::{Patience, ReadApi as _, Workspace as _};
use serde_json::{Value, json};

use super::stand_in::{Said, Seen, StandIn, ok, refused};
use super::{TOKEN, World};

const PROJECTS: &str = "/api/2.0/postgres/projects";

fn create() -> ApiCall {
    ApiCall::post(PROJECTS).query("project_id", "shop").body(json!({"spec": {"pg_version": 17}}))
}

#[tokio::test]
async fn a_throttled_call_is_sent_again_after_the_time_that_was_asked_for() {
    let stand_in = StandIn::new(|seen| match seen.earlier {
        0 => Said::Wait(429, "7"),
        1 => Said::Wait(503, "soon"),
        2 => refused(400, "X", "RPC token bucket limit has been exceeded"),
        _ => ok(json!({"name": "projects/shop/operations/1"})),
    })
    .await;
    let world = World::new(&stand_in.host);
    let reply = world.client.send(&create()).await.unwrap();
    assert_eq!((reply.status, &reply.body["name"]), (200, &json!("projects/shop/operations/1")));
    assert_eq!(world.clock.waited(), [7, 1, 1]);
    let seen = &stand_in.seen()[3];
    assert_eq!((seen.line(), seen.query.as_str()), (format!("POST {PROJECTS}"), "project_id=shop"));
    assert_eq!(seen.body, json!({"spec": {"pg_version": 17}}));
    assert_eq!(seen.header("authorization"), format!("Bearer {TOKEN}"));
    let agent = seen.header("user-agent");
    let version = env!("CARGO_PKG_VERSION");
    assert!(agent.starts_with(&format!("lakeops/{version} reqwest/")), "{agent}");
    assert!(agent.contains(" rust/1.") && agent.ends_with(" auth/pat"), "{agent}");
}

#[tokio::test]
async fn a_workspace_that_throttles_for_too_long_is_given_up() {
    let stand_in = StandIn::new(|_| Said::Wait(429, "120")).await;
    let world = World::new(&stand_in.host);
    let failure = world.client.send(&create()).await.unwrap_err();
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (RetryClass::Transient, "lakebase::throttled")
    );
    assert!(failure.message.contains("given up"), "{failure}");
    assert_eq!(world.clock.waited(), [120, 120], "the budget is 300 s");
}

#[tokio::test]
async fn a_lost_answer_leaves_a_change_in_doubt_and_a_read_is_sent_again() {
    let stand_in = StandIn::new(|seen| match seen.verb.as_str() {
        "GET" if seen.earlier > 0 => ok(json!({"uid": "u"})),
        "PATCH" => refused(504, "DEADLINE_EXCEEDED", "too slow"),
        "DELETE" => Said::Text(200, "<html>hello</html>"),
        _ => Said::Nothing,
    })
    .await;
    let patience = Patience { request: Duration::from_secs(2), ..Patience::default() };
    let world = World::patient(&stand_in.host, &[("DATABRICKS_TOKEN", TOKEN)], patience);
    let lost = world.client.send(&create()).await.unwrap_err();
    assert_eq!((lost.class, lost.code.as_str()), (RetryClass::InDoubt, "lakebase::timeout"));
    let path = format!("{PROJECTS}/shop");
    for call in [ApiCall::patch(&path), ApiCall::delete(&path)] {
        let failure = world.client.send(&call).await.unwrap_err();
        assert_eq!(failure.class, RetryClass::InDoubt, "{failure}");
    }
    assert_eq!(stand_in.seen().len(), 3, "nothing was sent twice");
    assert_eq!(world.client.get(&path).await.unwrap(), json!({"uid": "u"}));
}

#[tokio::test]
async fn what_never_arrived_is_sent_again_for_a_while() {
    // A port that nobody listens on, and that nobody else can take.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let world = World::new(&format!("http://{}", socket.local_addr().unwrap()));
    let failure = world.client.send(&create()).await.unwrap_err();
    let found = (failure.class, failure.code.as_str());
    assert_eq!(found, (RetryClass::Transient, "lakebase::unreachable"), "{failure}");
    assert_eq!(world.clock.waited(), [1, 2, 3, 4, 5], "20 s in all");
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_is_in_doubt() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut some = [0; 16];
        tokio::io::AsyncReadExt::read(&mut socket, &mut some).await.unwrap();
    });
    let failure = World::new(&host).client.send(&create()).await.unwrap_err();
    assert_eq!(failure.class, RetryClass::InDoubt, "{failure}");
    server.await.unwrap();
}

#[tokio::test]
async fn a_collection_is_read_to_its_end() {
    let stand_in = StandIn::new(|seen| {
        ok(match seen.query.as_str() {
            "show_deleted=true" => json!({"projects": [{"name": "a"}], "next_page_token": "p 2"}),
            // A page may be empty and yet not the last.
            "show_deleted=true&page_token=p+2" => json!({"next_page_token": "p3"}),
            "show_deleted=true&page_token=p3" => {
                json!({"projects": [{"name": "b"}], "next_page_token": ""})
            }
            _ => json!({"projects": [], "next_page_token": "for ever"}),
        })
    })
    .await;
    let world = World::new(&stand_in.host);
    let path = format!("{PROJECTS}?show_deleted=true");
    let all = world.client.list(&path, "projects").await.unwrap();
    assert_eq!(all, [json!({"name": "a"}), json!({"name": "b"})]);
    let failure = world.client.list(PROJECTS, "projects").await.unwrap_err();
    assert!(failure.message.contains("have no end"), "{failure}");
}

#[tokio::test]
async fn nothing_there_is_told_from_a_stranger_who_does_not_know() {
    let stand_in = StandIn::new(|seen| match seen.path.as_str() {
        "/gone" => refused(404, "NOT_FOUND", "project id not found"),
        "/moved" => Said::Json(302, Value::Null),
        _ => Said::Text(404, "<html>no such page</html>"),
    })
    .await;
    let world = World::new(&stand_in.host);
    let code = async |path: &str| world.client.get(path).await.unwrap_err().code;
    assert_eq!(code("/gone").await, "lakebase::not_found");
    assert_eq!(code("/page").await, "lakebase::no_such_route");
    assert_eq!(code("/moved").await, "lakebase::redirected");
}

/// A workspace that gives tokens to a service principal: `access-token-N`, good for an hour.
fn with_tokens(seen: &Seen, base: &str) -> Option<Said> {
    Some(match seen.line().as_str() {
        "GET /.well-known/databricks-config" => {
            ok(json!({"oidc_endpoint": format!("{base}/oidc")}))
        }
        "GET /oidc/.well-known/oauth-authorization-server" => {
            ok(json!({"token_endpoint": format!("{base}/oidc/given")}))
        }
        "POST /oidc/given" if seen.header("authorization") != "Basic cm9ib3Q6cm9ib3Qtc2VjcmV0" => {
            Said::Json(401, json!({"error": "invalid_client", "error_description": "who?"}))
        }
        "POST /oidc/given" => {
            assert_eq!(seen.text, "grant_type=client_credentials&scope=all-apis");
            let token = format!("access-token-{}", seen.earlier + 1);
            ok(json!({"access_token": token, "token_type": "Bearer", "expires_in": "3600"}))
        }
        _ => return None,
    })
}

fn base(seen: &Seen) -> String {
    format!("http://{}", seen.header("host"))
}

const ROBOT: [(&str, &str); 2] =
    [("DATABRICKS_CLIENT_ID", "robot"), ("DATABRICKS_CLIENT_SECRET", "robot-secret")];

#[tokio::test]
async fn a_service_principal_renews_its_token_ahead_of_time_once_for_all() {
    let stand_in = StandIn::new(|seen| {
        with_tokens(seen, &base(seen))
            .unwrap_or_else(|| ok(json!({"by": seen.header("authorization")})))
    })
    .await;
    let world = World::with(&stand_in.host, &ROBOT);
    let given = || stand_in.lines().iter().filter(|line| *line == "POST /oidc/given").count();
    let (a, b) = tokio::join!(world.client.get("/a"), world.client.get("/b"));
    assert_eq!((a.unwrap(), given()), (b.unwrap(), 1));
    world.clock.turn(Duration::from_mins(39));
    assert_eq!(world.client.get("/a").await.unwrap()["by"], "Bearer access-token-1");
    world.clock.turn(Duration::from_mins(2));
    assert_eq!(world.client.get("/a").await.unwrap()["by"], "Bearer access-token-2");
    assert_eq!(given(), 2);
    assert_eq!(world.client.identity().await.unwrap(), "robot");
    assert_eq!(world.redactor.mask("access-token-2 robot-secret"), "[redacted] [redacted]");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let stand_in = StandIn::new(|seen| {
        with_tokens(seen, &base(seen)).unwrap_or_else(|| {
            match (seen.path.as_str(), seen.header("authorization")) {
                ("/never", _) | (_, "Bearer access-token-1") => {
                    refused(401, "UNAUTHENTICATED", "revoked")
                }
                _ => ok(json!({"done": true})),
            }
        })
    })
    .await;
    let world = World::with(&stand_in.host, &ROBOT);
    world.client.send(&create()).await.unwrap();
    let failure = world.client.get("/never").await.unwrap_err();
    assert_eq!(failure.code, "lakebase::not_authenticated");
    assert_eq!(stand_in.lines().iter().filter(|line| *line == "GET /never").count(), 2);

    let stranger = [("DATABRICKS_CLIENT_ID", "robot"), ("DATABRICKS_CLIENT_SECRET", "guessed-it")];
    let failure = World::with(&stand_in.host, &stranger).client.get("/a").await.unwrap_err();
    assert_eq!(failure.code, "lakebase::not_authenticated", "{failure}");
    assert!(failure.message.contains("who?"), "{failure}");
}

#[tokio::test]
async fn a_client_secret_goes_nowhere_in_clear() {
    let stand_in = StandIn::new(|_| {
        ok(json!({"token_endpoint": "http://192.0.2.1/token", "oidc_endpoint": ""}))
    })
    .await;
    let host = stand_in.host.clone();
    let base = host.clone();
    let liar = StandIn::new(move |seen| match seen.path.as_str() {
        "/.well-known/databricks-config" => ok(json!({"oidc_endpoint": base})),
        _ => ok(json!({})),
    })
    .await;
    let failure = World::with(&liar.host, &ROBOT).client.get("/a").await.unwrap_err();
    assert!(failure.message.contains("without TLS"), "{failure}");
}

#[tokio::test]
async fn a_password_is_minted_for_one_endpoint_and_masked() {
    let stand_in = StandIn::new(|seen| match seen.line().as_str() {
        "POST /api/2.0/postgres/credentials" => {
            assert_eq!(seen.body, json!({"endpoint": "projects/p/branches/b/endpoints/e"}));
            ok(json!({"token": "password-of-an-hour", "expire_time": "2030-01-01T00:00:00Z"}))
        }
        _ => ok(json!({"userName": "ann@example.com"})),
    })
    .await;
    let world = World::new(&stand_in.host);
    let minted = world.client.mint("projects/p/branches/b/endpoints/e").await.unwrap();
    assert_eq!(minted.token.expose(), "password-of-an-hour");
    assert_eq!(minted.expires_at.to_string(), "2030-01-01T00:00:00.000Z");
    assert_eq!(world.redactor.mask("password-of-an-hour"), "[redacted]");
    assert_eq!(world.client.identity().await.unwrap(), "ann@example.com");
    world.client.identity().await.unwrap();
    assert_eq!(stand_in.lines().len(), 2, "who I am is asked once");
}

#[tokio::test]
async fn a_select_is_polled_and_read_in_chunks() {
    let columns = json!([{"name": "sku"}, {"name": "total"}]);
    let stand_in = StandIn::new(move |seen| {
        ok(match (seen.line().as_str(), seen.earlier) {
            ("POST /api/2.0/sql/statements", _) => {
                assert_eq!(seen.body["warehouse_id"], "w1");
                json!({"statement_id": "s1", "status": {"state": "PENDING"}})
            }
            ("GET /api/2.0/sql/statements/s1", 0) => {
                json!({"statement_id": "s1", "status": {"state": "RUNNING"}})
            }
            ("GET /api/2.0/sql/statements/s1", _) => json!({
                "statement_id": "s1", "status": {"state": "SUCCEEDED"},
                "manifest": {"schema": {"columns": columns}, "total_row_count": 2},
                "result": {"data_array": [["a", "1"]], "next_chunk_index": 1},
            }),
            ("GET /api/2.0/sql/statements/s1/result/chunks/1", _) => {
                json!({"chunk_index": 1, "data_array": [["b", null]]})
            }
            other => panic!("{other:?}"),
        })
    })
    .await;
    let world = World::new(&stand_in.host);
    let rows = world.client.select("select sku, total from usage").await.unwrap();
    assert_eq!(rows, [json!({"sku": "a", "total": "1"}), json!({"sku": "b", "total": null})]);
    let failure = world.client.select("drop table usage").await.unwrap_err();
    assert_eq!(failure.code, "lakebase::not_a_read");
    assert_eq!(stand_in.lines().len(), 4, "what is no SELECT is not sent");
}

#[tokio::test]
async fn a_select_that_fails_or_never_ends_is_told_so() {
    let stand_in = StandIn::new(|seen| {
        let slow = seen.body["statement"] == "select slow()" || seen.path.contains("/slow");
        ok(if slow {
            json!({"statement_id": "slow", "status": {"state": "RUNNING"}})
        } else {
            json!({"statement_id": "s", "status": {"state": "FAILED", "error":
                {"error_code": "BAD_REQUEST", "message": "no such table"}}})
        })
    })
    .await;
    let world = World::new(&stand_in.host);
    let failure = world.client.select("select * from nothing").await.unwrap_err();
    assert!(failure.message.contains("no such table"), "{failure}");
    assert_eq!(failure.code, "lakebase::statement_failed");
    let failure = world.client.select("select slow()").await.unwrap_err();
    assert_eq!(failure.code, "lakebase::statement_timeout");
    let last = stand_in.lines().pop().unwrap();
    assert_eq!(last, "POST /api/2.0/sql/statements/slow/cancel");
    let nowhere = World::with(&stand_in.host, &[("DATABRICKS_TOKEN", TOKEN)]);
    let failure = nowhere.client.select("select 1").await.unwrap_err();
    assert_eq!(failure.code, "lakebase::no_warehouse");
}
