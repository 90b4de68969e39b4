//! The whole endpoint over a tree that is not alive.
#![allow(clippy::unwrap_used)]

use std::{net::IpAddr, sync::Arc};

use actors::{
    handle::Fault,
    view::{ExplainView, Wanted},
};
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
};
use http_body_util::BodyExt as _;
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::{
    Keyring, Rules, Trail, Tree, page, router,
    testing::{Still, peer},
};
use crate::keys::AdminToken;

pub(super) struct Endpoint {
    pub(super) tree: Arc<Still>,
    ip: IpAddr,
    hosts: Vec<String>,
    chaos: bool,
    pub(super) token: AdminToken,
    pub(super) keyring: Arc<Keyring>,
    trail: Trail,
    _folder: TempDir,
}

pub(super) fn endpoint(ip: &str) -> Endpoint {
    let folder = tempfile::tempdir().unwrap();
    let token = AdminToken::read_or_create(folder.path(), &mut StdRng::seed_from_u64(7)).unwrap();
    let keyring = Arc::new(Keyring::open(folder.path(), &token).unwrap());
    let trail = Trail::open(folder.path()).unwrap();
    let (tree, ip, hosts, chaos) = (Arc::default(), ip.parse().unwrap(), Vec::new(), false);
    Endpoint { tree, ip, hosts, chaos, token, keyring, trail, _folder: folder }
}

impl Endpoint {
    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router().oneshot(request).await.unwrap()
    }

    fn router(&self) -> axum::Router {
        let rules = Rules {
            ip: self.ip,
            hosts: self.hosts.clone(),
            keyring: Arc::clone(&self.keyring),
            trail: self.trail.clone(),
            chaos: self.chaos,
        };
        router(Arc::clone(&self.tree) as Arc<dyn Tree>, rules)
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).header(header::HOST, "localhost:7300").body(Body::empty()).unwrap()).await
    }

    async fn called(&self, headers: &[(&str, &str)]) -> StatusCode {
        let request =
            headers.iter().fold(Request::get("/api/v1/status"), |request, (name, value)| request.header(*name, *value));
        self.send(request.body(Body::empty()).unwrap()).await.status()
    }

    async fn inject(&self, path: &str, token: Option<&str>, body: &Value) -> Response {
        let mut request = Request::post(format!("/api/v1/chaos/actors/{path}"))
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

pub(super) async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(super) async fn json_of(response: Response) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

#[tokio::test]
async fn only_the_names_on_the_list_are_heard() {
    let loopback = Endpoint { hosts: vec!["cloud.example".to_owned()], ..endpoint("127.0.0.1") };
    for (host, status) in [
        ("localhost", 200),
        ("localhost:7300", 200),
        ("LOCALHOST:9999", 200),
        ("127.0.0.1", 200),
        ("127.0.0.1:7300", 200),
        ("[::1]:7300", 200),
        ("cloud.example", 200),
        ("Cloud.Example:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil@localhost", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0:7300", 403),
        ("[::]:7300", 403),
        ("", 400),
        ("a b", 400),
    ] {
        assert_eq!(loopback.called(&[("host", host)]).await.as_u16(), status, "{host}");
    }
    assert_eq!(loopback.called(&[]).await, StatusCode::BAD_REQUEST);
    assert_eq!(loopback.called(&[("host", "localhost"), ("host", "localhost")]).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_whole_url_in_the_request_line_is_checked_too() {
    let request = |url: &str| Request::get(url).header(header::HOST, "localhost").body(Body::empty()).unwrap();
    let endpoint = endpoint("127.0.0.1");
    assert_eq!(endpoint.send(request("http://evil.example/healthz")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(endpoint.send(request("http://localhost/healthz")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn pages_of_other_origins_may_not_ask() {
    let endpoint = endpoint("127.0.0.1");
    for (origin, status) in [
        ("http://localhost:7300", 200),
        ("https://localhost:7300", 200),
        ("http://localhost:8080", 403),
        ("http://localhost", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("", 403),
    ] {
        let headers = [("host", "localhost:7300"), ("origin", origin)];
        assert_eq!(endpoint.called(&headers).await.as_u16(), status, "{origin}");
    }
}

#[tokio::test]
async fn beyond_loopback_everything_needs_the_token() {
    let outside = endpoint("192.0.2.7");
    let token = format!("Bearer {}", outside.token.expose());
    let wrong = format!("Bearer {}", "0".repeat(64));
    for (authorization, status) in [
        (None, 401),
        (Some(token.as_str()), 200),
        (Some(&*token.replace("Bearer", "bearer")), 200),
        (Some(&*wrong), 401),
        (Some(&token[..token.len() - 1]), 401),
        (Some("Bearer"), 401),
        (Some("Bearer "), 401),
        (Some(&*token.replace("Bearer", "Basic")), 401),
    ] {
        for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/none"] {
            let mut request = Request::get(path).header(header::HOST, "192.0.2.7:7300");
            if let Some(authorization) = authorization {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let got = outside.send(request.body(Body::empty()).unwrap()).await.status().as_u16();
            let passed = got != 401 && got != 403;
            assert_eq!(passed, status == 200, "{path} {authorization:?}: {got}");
        }
    }
}

#[tokio::test]
async fn a_host_header_is_refused_before_a_token_is_looked_at() {
    let outside = endpoint("192.0.2.7");
    assert_eq!(outside.called(&[("host", "evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(outside.called(&[("host", "localhost")]).await, StatusCode::FORBIDDEN);
    let everywhere = endpoint("0.0.0.0");
    assert_eq!(everywhere.called(&[("host", "evil.example")]).await, StatusCode::FORBIDDEN);
    assert_eq!(everywhere.called(&[("host", "192.0.2.9")]).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_changes_state_needs_the_token_on_loopback_too() {
    let endpoint = Endpoint { chaos: true, ..endpoint("127.0.0.1") };
    let body = json!({ "fault": "panic" });
    let wrong = "0".repeat(64);
    for token in [None, Some(wrong.as_str()), Some("")] {
        assert_eq!(endpoint.inject("root/store", token, &body).await.status(), StatusCode::UNAUTHORIZED);
    }
    assert!(endpoint.tree.injected.lock().unwrap().is_empty());
    let token = endpoint.token.expose();
    assert_eq!(endpoint.inject("root/node/pool", Some(token), &body).await.status(), StatusCode::NO_CONTENT);
    let injected = endpoint.tree.injected.lock().unwrap().clone();
    assert_eq!(injected, [("root/node/pool".to_owned(), Fault::Panic)]);
}

#[tokio::test]
async fn faults_exist_only_where_chaos_is_on() {
    let endpoint = endpoint("127.0.0.1");
    let token = endpoint.token.expose().to_owned();
    let response = endpoint.inject("root/store", Some(&token), &json!({ "fault": "panic" })).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_fault_that_makes_no_sense_is_refused() {
    let endpoint = Endpoint { chaos: true, ..endpoint("127.0.0.1") };
    let token = endpoint.token.expose().to_owned();
    for (body, status) in [
        (json!({ "fault": "stall", "ms": 600_000 }), 204),
        (json!({ "fault": "stall", "ms": 600_001 }), 422),
        (json!({ "fault": "stall" }), 422),
        (json!({ "fault": "panic", "ms": 1 }), 422),
        (json!({ "fault": "explode" }), 422),
        (json!({ "fault": "panic", "more": 1 }), 422),
        (json!([]), 422),
    ] {
        assert_eq!(endpoint.inject("root/store", Some(&token), &body).await.status().as_u16(), status, "{body}");
    }
    let unknown = endpoint.inject("root/none", Some(&token), &json!({ "fault": "error" })).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let plain = Request::post("/api/v1/chaos/actors/root")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from(r#"{"fault":"panic"}"#))
        .unwrap();
    assert_eq!(endpoint.send(plain).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused() {
    let endpoint = Endpoint { chaos: true, ..endpoint("127.0.0.1") };
    let token = endpoint.token.expose().to_owned();
    let padded = |bytes: usize| json!({ "fault": "panic", "ms": null, "x": "y".repeat(bytes) });
    let at = padded(super::BODY_BYTES_MAX - padded(0).to_string().len());
    assert_eq!(endpoint.inject("root", Some(&token), &at).await.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let past = padded(super::BODY_BYTES_MAX + 1 - padded(0).to_string().len());
    assert_eq!(endpoint.inject("root", Some(&token), &past).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_actor_that_is_away_is_said_in_words_and_does_not_fail_health() {
    let away = Endpoint { tree: Arc::new(Still { is_away: true, ..Still::default() }), ..endpoint("127.0.0.1") };
    let response = away.get("/api/v1/status").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    let problem = json_of(response).await;
    assert_eq!(problem["detail"], "root/node is away");
    assert_eq!((&problem["status"], &problem["title"]), (&json!(503), &json!("Service Unavailable")));
    assert_eq!(away.get("/healthz").await.status(), StatusCode::OK);
    assert_eq!(away.get("/livez").await.status(), StatusCode::OK);
    assert_eq!(away.get("/api/v1/actors").await.status(), StatusCode::OK);
    let ready = away.get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json_of(ready).await, json!({ "ready": false, "reasons": ["root/node is away"] }));
}

#[tokio::test]
async fn readiness_says_why_not() {
    let unready = endpoint("127.0.0.1");
    let response = unready.get("/readyz").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json_of(response).await["reasons"][0], "no indexer answers; is the seed up?");
    let ready = Endpoint { tree: Arc::new(Still { is_ready: true, ..Still::default() }), ..endpoint("127.0.0.1") };
    assert_eq!(ready.get("/readyz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_search_streams_hits_and_its_last_word() {
    let endpoint = endpoint("127.0.0.1");
    let response = endpoint.get("/api/v1/search?name=par&user=jane").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = text(response).await;
    let blocks: Vec<&str> = text.split("\n\n").filter(|block| !block.is_empty()).collect();
    assert_eq!(blocks.len(), 2, "{text}");
    assert!(blocks[0].starts_with("event: hit\ndata: {") && blocks[1].starts_with("event: end\ndata: {"), "{text}");
    let hit: Value = serde_json::from_str(blocks[0].split_once("data: ").unwrap().1).unwrap();
    assert_eq!(hit["record"], json!({ "name": "paris", "unknown": 1 }));
    assert_eq!(hit["peer_id"], json!(peer().to_string()));
    let searched = endpoint.tree.searched.lock().unwrap().clone();
    assert_eq!(searched, [("jane".to_owned(), Wanted { name: Some("par".to_owned()), ..Wanted::default() })]);
}

#[tokio::test]
async fn a_search_for_resources_streams_hits_and_its_last_word() {
    use protocol::{catalogue::Kind, search::resources::Scope};
    let endpoint = endpoint("127.0.0.1");
    let path = "/api/v1/searches?scope=partner&text=gpu&kind=compute&group=ops&group=dev&user=jane";
    let text = text(endpoint.get(path).await).await;
    let blocks: Vec<&str> = text.split("\n\n").filter(|block| !block.is_empty()).collect();
    assert_eq!(blocks.len(), 2, "{text}");
    assert!(blocks[0].starts_with("event: hit\ndata: {") && blocks[1].starts_with("event: end\ndata: {"), "{text}");
    let groups = vec!["ops".to_owned(), "dev".to_owned()];
    let asked = ("jane".to_owned(), Scope::Partner, "gpu".to_owned(), Some(Kind::Compute), groups);
    assert_eq!(endpoint.tree.sought.lock().unwrap()[0], asked);
    let most: String = (0..protocol::catalogue::GROUPS_MAX).map(|n| format!("&group=g{n}")).collect();
    assert_eq!(endpoint.get(&format!("/api/v1/searches?text=x{most}")).await.status(), StatusCode::OK);
    for wrong in ["scope=near", "kind=car", "name=gpu", "user=", &format!("text=x{most}&group=one-more")] {
        let response = endpoint.get(&format!("/api/v1/searches?{wrong}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_listed_with_what_to_do_and_what_was_measured_is_kept() {
    let endpoint = endpoint("127.0.0.1");
    let alerts = json_of(endpoint.get("/api/v1/alerts").await).await;
    assert_eq!((&alerts[0]["topic"], &alerts[0]["severity"]), (&"disk".into(), &"warning".into()));
    assert!(alerts[0]["remedy"].as_str().is_some_and(|remedy| remedy.contains("make room")));
    let report = json_of(endpoint.get("/api/v1/report").await).await;
    assert_eq!((&report["last"], &report["running"]["alerts"]["isolated"]["raised"]), (&Value::Null, &1.into()));
    let history = json_of(endpoint.get("/api/v1/alerts/history").await).await;
    assert_eq!(history[0]["figures"]["disk"], 0.95);
}

#[tokio::test]
async fn a_member_without_a_bus_says_so() {
    let response = endpoint("127.0.0.1").get("/api/v1/bus").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(json_of(response).await["detail"].as_str().unwrap().contains("bus.url is empty"));
}

#[tokio::test]
async fn two_searches_without_a_user_are_two_users() {
    let endpoint = endpoint("127.0.0.1");
    for _ in 0..2 {
        assert_eq!(endpoint.get("/api/v1/search?did=did:key:z").await.status(), StatusCode::OK);
    }
    let searched = endpoint.tree.searched.lock().unwrap().clone();
    assert_ne!(searched[0].0, searched[1].0);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused() {
    let endpoint = endpoint("127.0.0.1");
    let long_user = format!("/api/v1/search?name=par&user={}", "u".repeat(129));
    for (path, status) in [
        ("/api/v1/search?nme=par", 400),
        ("/api/v1/search?name=par&user=", 400),
        (long_user.as_str(), 400),
        ("/api/v1/events?since=x", 400),
        ("/api/v1/events?until=1", 400),
        ("/api/v1/records/unknown", 404),
        ("/api/v1/none", 404),
        ("/dashboard", 404),
        ("/dashboard/none.js", 404),
        ("/dashboard/../admin/mod.rs", 404),
    ] {
        let response = endpoint.get(path).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{path}");
    }
    let delete = Request::delete("/api/v1/status")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {}", endpoint.token.expose()))
        .body(Body::empty())
        .unwrap();
    assert_eq!(endpoint.send(delete).await.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_page_comes_with_its_types_and_a_policy_that_lets_nothing_else_in() {
    let endpoint = endpoint("127.0.0.1");
    for file in page::files() {
        let response = endpoint.get(file.path).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", file.path);
        let headers = response.headers().clone();
        assert_eq!(headers[header::CONTENT_TYPE], file.kind, "{}", file.path);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], page::POLICY, "{}", file.path);
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        assert_eq!(text(response).await, file.text, "{}", file.path);
    }
    let kind = |path: &str| page::files().find(|file| file.path == path).unwrap().kind;
    assert_eq!(kind("/"), "text/html; charset=utf-8");
    assert_eq!(kind("/dashboard/style.css"), "text/css; charset=utf-8");
    assert_eq!(kind("/dashboard/views/pool.js"), "text/javascript; charset=utf-8");
    for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(page::POLICY.split("; ").any(|rule| rule == part), "{part}");
    }
    assert!(!page::POLICY.contains("unsafe") && !page::POLICY.contains('*'));
}

#[tokio::test]
async fn a_file_that_the_browser_has_is_not_sent_again_and_keeps_its_policy() {
    let endpoint = endpoint("127.0.0.1");
    let mark = endpoint.get("/").await.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_ne!(mark, endpoint.get("/dashboard/main.js").await.headers()[header::ETAG].to_str().unwrap());
    for (held, status) in
        [(&*mark, 304), (&*format!("\"x\", W/{mark}"), 304), ("*", 304), ("\"0000000000000000\"", 200), ("", 200)]
    {
        let request = Request::get("/").header(header::HOST, "localhost").header(header::IF_NONE_MATCH, held);
        let response = endpoint.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status().as_u16(), status, "{held}");
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], page::POLICY, "{held}");
        assert_eq!(text(response).await.is_empty(), status == 304, "{held}");
    }
}

#[tokio::test]
async fn the_page_stands_behind_the_guard_as_all_else_does() {
    let foreign = Request::get("/").header(header::HOST, "evil.example").body(Body::empty()).unwrap();
    assert_eq!(endpoint("127.0.0.1").send(foreign).await.status(), StatusCode::FORBIDDEN);
    let beyond = Request::get("/").header(header::HOST, "192.0.2.7").body(Body::empty()).unwrap();
    assert_eq!(endpoint("192.0.2.7").send(beyond).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn keys_are_unescaped_and_records_kept_as_they_came() {
    let endpoint = endpoint("127.0.0.1");
    let response = endpoint.get("/api/v1/records/did%3Akey%3Az%2F%C3%A9").await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = text(response).await;
    assert!(text.contains("{\"name\":\r\n\"paris\", \"unknown\": 1}"), "{text}");
}

#[tokio::test]
async fn a_shown_score_is_computed_again_from_the_shown_json_to_the_last_bit() {
    let endpoint = endpoint("127.0.0.1");
    let response = endpoint.get(&format!("/api/v1/indexers/{}/explain", peer())).await;
    assert_eq!(response.status(), StatusCode::OK);
    let text = text(response).await;
    let mut view: ExplainView = serde_json::from_str(&text).unwrap();
    let explained = view.explained.as_mut().unwrap();
    let (shown, again) = (explained.score.clone().unwrap(), explained.recomputed().unwrap());
    assert_eq!(shown.value.to_bits(), again.value.to_bits());
    assert_eq!((shown.low.to_bits(), shown.high.to_bits()), (again.low.to_bits(), again.high.to_bits()));
    assert_eq!(explained.ledger.entries().len(), 80);
    assert_eq!(explained.ledger.decisions().len(), 1);
    assert!(explained.holds());
    explained.score.as_mut().unwrap().value += 1e-12;
    assert!(!explained.holds(), "a changed score is noticed");
    let unknown = endpoint.get("/api/v1/indexers/12D3KooWGC6TvWhfagifX6nnLLNGqWk9cNJ8gEHJcG8p5Kx9KzBK/explain").await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn events_are_asked_from_the_last_seen() {
    let endpoint = endpoint("127.0.0.1");
    assert_eq!(json_of(endpoint.get("/api/v1/events?since=41").await).await[0]["seq"], 42);
    assert_eq!(json_of(endpoint.get("/api/v1/events").await).await[0]["seq"], 1);
}

#[tokio::test]
async fn metrics_name_their_form_and_nothing_may_be_cached_or_framed() {
    let response = endpoint("127.0.0.1").get("/metrics").await;
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(text(response).await, "# EOF\n");
}

impl Endpoint {
    pub(super) async fn told(&self, method: &str, path: &str, token: Option<&str>, body: &Value) -> Response {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

#[tokio::test]
async fn p7_bans_and_drain_need_the_token_and_reading_them_does_not() {
    let endpoint = endpoint("127.0.0.1");
    let ban = json!({ "peer_id": peer().to_string() });
    let one = format!("/api/v1/bans/{}", peer());
    for (method, path) in
        [("POST", "/api/v1/bans"), ("DELETE", &*one), ("PUT", "/api/v1/drain"), ("DELETE", "/api/v1/drain")]
    {
        assert_eq!(endpoint.told(method, path, None, &ban).await.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
    }
    assert!(endpoint.tree.banned.lock().unwrap().is_empty() && endpoint.tree.drained.lock().unwrap().is_empty());
    assert_eq!(json_of(endpoint.get("/api/v1/bans").await).await, json!([]));
}

#[tokio::test]
async fn a_ban_has_a_length_a_reason_and_an_end() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let add = |body: Value| {
        let endpoint = &endpoint;
        async move { endpoint.told("POST", "/api/v1/bans", token, &body).await.status() }
    };
    let id = peer().to_string();
    assert_eq!(add(json!({ "peer_id": id, "for": "1h", "reason": "loud" })).await, StatusCode::NO_CONTENT);
    let hour = Some(std::time::Duration::from_secs(3_600));
    assert_eq!(*endpoint.tree.banned.lock().unwrap(), [(peer(), hour, "loud".to_owned())]);
    let listed = json_of(endpoint.get("/api/v1/bans").await).await;
    assert_eq!(
        (&listed[0]["peer_id"], &listed[0]["reason"], &listed[0]["until"]),
        (&json!(id), &json!("loud"), &Value::Null)
    );
    for wrong in [
        json!({}),
        json!({ "peer_id": "nobody" }),
        json!({ "peer_id": id, "for": "1" }),
        json!({ "peer_id": id, "by": 1 }),
    ] {
        assert_eq!(add(wrong.clone()).await, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    let path = format!("/api/v1/bans/{id}");
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_revocation_is_handed_in_as_it_was_signed_and_by_an_admin_alone() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let path = "/api/v1/revocations";
    let signed = super::examples::revoke();
    assert_eq!(endpoint.told("POST", path, None, &signed).await.status(), StatusCode::UNAUTHORIZED);
    assert!(endpoint.tree.revoked.lock().unwrap().is_empty());
    let mut changed = signed.clone();
    changed["reason"] = json!("another one");
    for wrong in [json!({}), json!("nothing"), changed] {
        assert_eq!(endpoint.told("POST", path, token, &wrong).await.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
    let held = endpoint.told("POST", path, token, &signed).await;
    assert_eq!(held.status(), StatusCode::OK);
    assert_eq!(json_of(held).await["weight"], json!("ours"));
    assert_eq!(endpoint.told("DELETE", path, token, &Value::Null).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(json_of(endpoint.get(path).await).await.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn drain_is_an_order_that_is_given_and_taken_back() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    for method in ["PUT", "DELETE"] {
        assert_eq!(endpoint.told(method, "/api/v1/drain", token, &Value::Null).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(*endpoint.tree.drained.lock().unwrap(), [true, false]);
    assert_eq!(
        endpoint.told("POST", "/api/v1/drain", token, &Value::Null).await.status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[tokio::test]
async fn what_changes_catalogue_and_partners_needs_the_token_and_reading_them_does_not() {
    let endpoint = endpoint("127.0.0.1");
    let partner = format!("/api/v1/partners/{}", peer());
    let planner = format!("/api/v1/planner/{}", peer());
    let wish = json!({ "relation": "partner", "kind": "compute" });
    for (method, path) in [
        ("PUT", "/api/v1/resources/farm-1"),
        ("DELETE", "/api/v1/resources/farm-1"),
        ("PUT", &*partner),
        ("DELETE", &*partner),
        ("POST", &*planner),
        ("DELETE", &*planner),
    ] {
        assert_eq!(
            endpoint.told(method, path, None, &wish).await.status(),
            StatusCode::UNAUTHORIZED,
            "{method} {path}"
        );
    }
    let tree = &endpoint.tree;
    assert!(tree.placed.lock().unwrap().is_empty() && tree.removed.lock().unwrap().is_empty());
    assert!(tree.related.lock().unwrap().is_empty() && tree.plans.lock().unwrap().is_empty());
    for path in ["resources", "resources/self/farm-1", "partners", "outbox", "planner"] {
        let path = &format!("/api/v1/{path}");
        assert_eq!(endpoint.get(path).await.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn a_resource_is_put_under_its_id_by_whom_the_query_says() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let path = "/api/v1/resources/farm-1?kind=compute_resource&user=jane&group=a&group=b";
    let response = endpoint.told("PUT", path, token, &json!({ "name": "Farm", "cores": 7.50 })).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(json_of(response).await, json!({ "creator": peer().to_string(), "id": "farm-1", "version": 7 }));
    let [(text, author)] = &endpoint.tree.placed.lock().unwrap().clone()[..] else { panic!("one was put") };
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), json!({ "id": "farm-1", "name": "Farm", "cores": 7.5 }));
    assert_eq!((&*author.user, &author.groups[..]), ("jane", &["a".to_owned(), "b".to_owned()][..]));
}

#[tokio::test]
async fn an_id_in_the_body_is_that_of_the_path_or_refused() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let put = |body: Value| {
        let endpoint = &endpoint;
        async move { endpoint.told("PUT", "/api/v1/resources/farm-1", token, &body).await }
    };
    for id in [json!("farm-1"), Value::Null] {
        let response = put(json!({ "id": id, "kind": "data", "name": "Farm" })).await;
        assert_eq!(response.status(), StatusCode::OK, "{id}");
    }
    for (body, words) in [
        (json!({ "id": "farm-2" }), "got the id \"farm-2\" in the body, expected \"farm-1\""),
        (json!({ "id": 7 }), "got the id 7 in the body"),
        (json!({ "name": "Farm" }), "got no \"kind\", expected one of compute"),
        (json!([]), "expected a map"),
    ] {
        let response = put(body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let detail = json_of(response).await["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_resource_over_many_lines_is_read_as_one() {
    let endpoint = endpoint("127.0.0.1");
    let request = Request::put("/api/v1/resources/farm-1")
        .header(header::HOST, "localhost")
        .header(header::AUTHORIZATION, format!("Bearer {}", endpoint.token.expose()))
        .body(Body::from("{\r\n  \"kind\": \"data\",\n  \"name\": \"Farm\"\n}\n"))
        .unwrap();
    assert_eq!(endpoint.send(request).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_resource_has_a_longer_body_than_the_rest_and_a_limit_too() {
    let endpoint = endpoint("127.0.0.1");
    let token = endpoint.token.expose();
    // White space within an object counts for the body's limit, and not for the resource's.
    let padded = |bytes: usize| {
        let head = r#"{"kind":"data","name":"Farm""#;
        format!("{head}{}}}", " ".repeat(bytes - head.len() - 1))
    };
    let put = |body: String| {
        let endpoint = &endpoint;
        async move {
            let request = Request::put("/api/v1/resources/farm-1")
                .header(header::HOST, "localhost")
                .header(header::CONTENT_LENGTH, body.len())
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .body(Body::from(body))
                .unwrap();
            endpoint.send(request).await
        }
    };
    assert_eq!(put(padded(super::RESOURCE_BODY_BYTES_MAX)).await.status(), StatusCode::OK);
    let past = put(padded(super::RESOURCE_BODY_BYTES_MAX + 1)).await;
    assert_eq!(past.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(past.headers()[header::CONTENT_TYPE], "application/problem+json");
    let partner = format!("/api/v1/partners/{}", peer());
    let long = json!({ "name": "y".repeat(super::BODY_BYTES_MAX) });
    assert_eq!(endpoint.told("PUT", &partner, Some(token), &long).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_resource_at_its_own_limit_is_taken_and_one_byte_more_is_not() {
    use protocol::catalogue::RESOURCE_BYTES_MAX;
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let body = |bytes: usize| json!({ "id": "farm-1", "kind": "data", "name": "Farm", "x": "y".repeat(bytes) });
    let room = RESOURCE_BYTES_MAX - body(0).to_string().len();
    let put = |bytes: usize| {
        let endpoint = &endpoint;
        async move { endpoint.told("PUT", "/api/v1/resources/farm-1", token, &body(bytes)).await.status() }
    };
    assert_eq!(put(room).await, StatusCode::OK);
    assert_eq!(put(room + 1).await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn who_is_named_beside_a_resource_is_somebody_that_an_event_can_carry() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let body = json!({ "kind": "data", "name": "Farm" });
    let groups = |count: usize| vec!["group=g"; count].join("&");
    let (at, past) = (format!("user={}", "u".repeat(256)), format!("user={}", "u".repeat(257)));
    for (query, status) in [
        (at.as_str(), 200),
        (&past, 400),
        (&*groups(64), 200),
        (&*groups(65), 400),
        ("user=", 400),
        ("group=a%0Ab", 400),
        ("user=a&user=b", 400),
        ("kind=farm", 400),
        ("kind=data&kind=data", 400),
        ("usr=jane", 400),
    ] {
        let path = format!("/api/v1/resources/farm-1?{query}");
        assert_eq!(endpoint.told("PUT", &path, token, &body).await.status().as_u16(), status, "{query}");
    }
}

#[tokio::test]
async fn a_resource_is_removed_once_and_by_somebody() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let remove = |path: &'static str| {
        let endpoint = &endpoint;
        async move { endpoint.told("DELETE", path, token, &Value::Null).await }
    };
    let response = remove("/api/v1/resources/farm-1?user=jane").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(json_of(response).await["version"], 8);
    assert_eq!(endpoint.tree.removed.lock().unwrap()[0].1.user, "jane");
    assert_eq!(remove("/api/v1/resources/none").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(remove("/api/v1/resources/farm-1?kind=data").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn resources_are_listed_page_by_page_and_self_is_ourselves() {
    let endpoint = endpoint("127.0.0.1");
    let page = json_of(endpoint.get("/api/v1/resources").await).await;
    assert_eq!(page["resources"][0]["resource"]["name"], "farm");
    assert_eq!(page["next"], format!("{}/farm-1", peer()));
    let path = "/api/v1/resources?kind=compute&creator=self&after=self/farm-1&limit=500";
    assert_eq!(endpoint.get(path).await.status(), StatusCode::OK);
    let listed = endpoint.tree.listed.lock().unwrap().clone();
    assert_eq!((listed[0].limit, listed[0].creator, &listed[0].after), (super::question::PAGE_USUAL, None, &None));
    assert_eq!((listed[1].limit, listed[1].creator), (500, Some(peer())));
    assert_eq!(listed[1].kind, Some(protocol::catalogue::Kind::Compute));
    assert_eq!(listed[1].after, Some((peer(), "farm-1".to_owned())));
    for (query, status) in [
        ("limit=1", 200),
        ("limit=0", 400),
        ("limit=501", 400),
        ("limit=x", 400),
        ("kind=farm", 400),
        ("creator=nobody", 422),
        ("text=fa", 200),
        ("text=fa&after=self/farm-1", 400),
        ("after=farm-1", 400),
        ("after=nobody/farm-1", 422),
        ("name=farm", 400),
    ] {
        let response = endpoint.get(&format!("/api/v1/resources?{query}")).await;
        assert_eq!(response.status().as_u16(), status, "{query}");
    }
    assert_eq!(endpoint.tree.listed.lock().unwrap().last().unwrap().text, "fa");
}

#[tokio::test]
async fn one_resource_is_shown_or_not_found() {
    let endpoint = endpoint("127.0.0.1");
    for (path, status) in [
        ("self/farm-1".to_owned(), 200),
        (format!("{}/farm-1", peer()), 200),
        ("self/none".to_owned(), 404),
        ("nobody/farm-1".to_owned(), 422),
    ] {
        let response = endpoint.get(&format!("/api/v1/resources/{path}")).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
    }
    let wrong = endpoint.told("POST", "/api/v1/resources/farm-1", Some(endpoint.token.expose()), &Value::Null).await;
    assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong.headers()[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn a_peer_is_made_a_partner_keeps_its_name_and_is_let_go_once() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let path = format!("/api/v1/partners/{}", peer());
    let put = |body: Value| {
        let (endpoint, path) = (&endpoint, &path);
        async move { endpoint.told("PUT", path, token, &body).await.status() }
    };
    assert_eq!(put(json!({ "name": "lyon" })).await, StatusCode::NO_CONTENT);
    let listed = json_of(endpoint.get("/api/v1/partners").await).await;
    assert_eq!((&listed[0]["relation"], &listed[0]["name"]), (&json!("partner"), &json!("lyon")));
    assert_eq!(put(json!({ "relation": "blacklist" })).await, StatusCode::NO_CONTENT);
    let listed = json_of(endpoint.get("/api/v1/partners?relation=blacklist").await).await;
    assert_eq!((&listed[0]["relation"], &listed[0]["name"]), (&json!("blacklist"), &json!("lyon")));
    assert_eq!(json_of(endpoint.get("/api/v1/partners?relation=partner").await).await, json!([]));
    for wrong in
        [json!({ "relation": "self" }), json!({ "relation": "none" }), json!({ "relation": 1 }), json!({ "nam": "x" })]
    {
        assert_eq!(put(wrong.clone()).await, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
    assert_eq!(endpoint.get("/api/v1/partners?relation=none").await.status(), StatusCode::BAD_REQUEST);
    let nobody = endpoint.told("PUT", "/api/v1/partners/nobody", token, &json!({})).await;
    assert_eq!(nobody.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_planner_session_is_opened_fed_listed_and_closed_once() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    let path = format!("/api/v1/planner/{}", peer());
    let post = |body: Value| {
        let (endpoint, path) = (&endpoint, &path);
        async move { endpoint.told("POST", path, token, &body).await.status().as_u16() }
    };
    assert_eq!(post(json!({})).await, 204);
    assert_eq!(post(json!({ "step": { "n": 1 }, "user": "jane", "groups": ["a"] })).await, 204);
    let fed = endpoint.tree.fed.lock().unwrap().clone();
    let [(step, author)] = &fed[..] else { panic!("one was fed: {fed:?}") };
    assert_eq!((&step[..], &*author.user, &author.groups[..]), (&br#"{"n":1}"#[..], "jane", &["a".to_owned()][..]));
    for (wrong, status) in [
        (json!({ "step": 1 }), 400),
        (json!({ "step": [] }), 400),
        (json!({ "user": "" }), 400),
        (json!({ "groups": vec!["g"; 65] }), 400),
        (json!({ "stop": {} }), 422),
        (json!({ "step": { "long": "x".repeat(super::BODY_BYTES_MAX) } }), 413),
    ] {
        assert_eq!(post(wrong.clone()).await, status, "{:.60}", wrong.to_string());
    }
    let listed = json_of(endpoint.get("/api/v1/planner").await).await;
    let expected = json!([{ "peer_id": peer().to_string(), "opened_at": "1970-01-01T00:00:00Z",
        "ends_at": "1970-01-01T00:00:00Z", "fed": 0, "waiting": 0 }]);
    assert_eq!(listed, expected);
    let nobody = endpoint.told("POST", "/api/v1/planner/nobody", token, &json!({})).await;
    assert_eq!(nobody.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(endpoint.told("DELETE", &path, token, &Value::Null).await.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_outbox_is_asked_by_destination_fate_and_page() {
    use store::{Destination, Fate};
    let endpoint = endpoint("127.0.0.1");
    for (query, status) in [
        (String::new(), 200),
        ("?to=bus&fate=waiting&before=9&limit=500".to_owned(), 200),
        (format!("?to={}", peer()), 200),
        ("?to=nobody".to_owned(), 422),
        ("?fate=lost".to_owned(), 400),
        ("?before=x".to_owned(), 400),
        ("?limit=0".to_owned(), 400),
        ("?limit=501".to_owned(), 400),
        ("?since=1".to_owned(), 400),
    ] {
        assert_eq!(endpoint.get(&format!("/api/v1/outbox{query}")).await.status().as_u16(), status, "{query}");
    }
    let asked = endpoint.tree.outbox.lock().unwrap().clone();
    assert_eq!(asked[0], (None, None, None, 100));
    assert_eq!(asked[1], (Some(Destination::Bus), Some(Fate::Waiting), Some(9), 500));
    assert_eq!(asked[2].0, Some(Destination::Peer(peer())));
}

/// Every path of the router, read from the router itself.
fn paths() -> Vec<String> {
    let routes = super::routes(true);
    let shown = format!("{routes:?}");
    let mut paths: Vec<String> = shown
        .split('"')
        .filter(|text| text.starts_with('/') && !text.contains("__private"))
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

#[tokio::test]
async fn every_route_of_the_router_is_described_and_nothing_else_is() {
    let endpoint = Endpoint { chaos: true, ..endpoint("127.0.0.1") };
    let document: Value = serde_json::from_str(super::openapi::text()).unwrap();
    let page: Vec<&str> = page::files().map(|file| file.path).collect();
    let mut routed = std::collections::BTreeSet::new();
    for path in paths().into_iter().filter(|path| !page.contains(&path.as_str())) {
        // Whoever does not know a method tells those that it knows.
        let asked = path.replace(['{', '}', '*'], "");
        let response = endpoint.told("BREW", &asked, Some(endpoint.token.expose()), &Value::Null).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let known = response.headers()[header::ALLOW].to_str().unwrap().to_lowercase();
        // HEAD comes with each GET by itself.
        for method in known.split(',').map(str::trim).filter(|method| *method != "head") {
            routed.insert((path.replace("{*", "{"), method.to_owned()));
        }
    }
    assert!(routed.len() >= 36, "{}: {routed:?}", routed.len());
    let described = document["paths"].as_object().unwrap().iter().flat_map(|(path, methods)| {
        methods.as_object().unwrap().keys().map(move |method| (path.clone(), method.clone()))
    });
    assert_eq!(routed, described.collect());
}

#[tokio::test]
async fn the_description_is_served_as_it_is_checked_in() {
    let response = endpoint("127.0.0.1").get("/api/v1/openapi.json").await;
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    assert_eq!(text(response).await, super::openapi::text());
}
