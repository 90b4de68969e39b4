//! What changes state at the endpoint: by whom it may be changed, and what is written down of it.
#![allow(clippy::unwrap_used)]

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use serde_json::{Value, json};

use super::{
    Role, keyring,
    testing::peer,
    tests::{Endpoint, endpoint, json_of},
};

impl Endpoint {
    /// A token of this role, made as an operator makes one.
    async fn made(&self, name: &str, role: Role) -> String {
        let wish = json!({ "name": name, "role": role });
        let response = self.told("POST", "/api/v1/tokens", Some(self.token.expose()), &wish).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        json_of(response).await["token"].as_str().unwrap().to_owned()
    }

    async fn log(&self) -> Vec<(String, String, u64)> {
        let log = json_of(self.get("/api/v1/audit").await).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry = |entry: &Value| {
            let what = format!("{} {}", text(&entry["method"]), text(&entry["path"]));
            (text(&entry["who"]), what, entry["status"].as_u64().unwrap())
        };
        log.as_array().unwrap().iter().map(entry).collect()
    }
}

#[tokio::test]
async fn a_token_does_what_its_role_may_until_it_is_taken_back() {
    let endpoint = endpoint("127.0.0.1");
    let reader = endpoint.made("grafana", Role::Reader).await;
    let operator = endpoint.made("ops", Role::Operator).await;
    let admin = endpoint.made("boss", Role::Admin).await;
    for (token, drain, tokens) in [(&reader, 403, 403), (&operator, 204, 403), (&admin, 204, 404)] {
        let got = endpoint.told("PUT", "/api/v1/drain", Some(token), &Value::Null).await;
        assert_eq!(got.status().as_u16(), drain);
        let got = endpoint.told("DELETE", "/api/v1/tokens/none", Some(token), &Value::Null).await;
        assert_eq!(got.status().as_u16(), tokens);
    }
    let refused = endpoint.told("PUT", "/api/v1/drain", Some(&reader), &Value::Null).await;
    let words = json_of(refused).await["detail"].as_str().unwrap().to_owned();
    assert_eq!(words, "this needs the role operator, and the token \"grafana\" has the role reader");
    let gone = endpoint.told("DELETE", "/api/v1/tokens/ops", Some(&admin), &Value::Null).await;
    assert_eq!(gone.status(), StatusCode::NO_CONTENT);
    let late = endpoint.told("PUT", "/api/v1/drain", Some(&operator), &Value::Null).await;
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED);
    let listed = json_of(endpoint.get("/api/v1/tokens").await).await;
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin", "grafana", "boss"]);
    assert!(!listed.to_string().contains(&reader), "a token is shown once");
}

#[tokio::test]
async fn a_token_that_cannot_be_made_or_removed_is_said_in_words() {
    let endpoint = endpoint("127.0.0.1");
    let token = Some(endpoint.token.expose());
    endpoint.made("ops", Role::Operator).await;
    for (body, status) in [
        (json!({ "name": "ops", "role": "reader" }), 409),
        (json!({ "name": "admin", "role": "reader" }), 409),
        (json!({ "name": "O P S", "role": "reader" }), 422),
        (json!({ "name": "x", "role": "root" }), 422),
        (json!({ "name": "x" }), 422),
        (json!({ "name": "x", "role": "reader", "token": "mine" }), 422),
    ] {
        let response = endpoint.told("POST", "/api/v1/tokens", token, &body).await;
        assert_eq!(response.status().as_u16(), status, "{body}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
    for (name, status) in [("none", 404), (keyring::ADMIN, 409)] {
        let response = endpoint.told("DELETE", &format!("/api/v1/tokens/{name}"), token, &Value::Null).await;
        assert_eq!(response.status().as_u16(), status, "{name}");
    }
}

#[tokio::test]
async fn beyond_loopback_a_readers_token_reads_and_does_no_more() {
    let outside = endpoint("192.0.2.7");
    let mut chance = rand::rng();
    let token = outside.keyring.add("grafana", Role::Reader, jiff::Timestamp::UNIX_EPOCH, &mut chance).unwrap();
    let ask = |method: &str| {
        let authorization = format!("Bearer {}", *token);
        let path = if method == "GET" { "/metrics" } else { "/api/v1/drain" };
        let request = Request::builder().method(method).uri(path).header(header::HOST, "192.0.2.7");
        outside.send(request.header(header::AUTHORIZATION, authorization).body(Body::empty()).unwrap())
    };
    assert_eq!(ask("GET").await.status(), StatusCode::OK);
    assert_eq!(ask("PUT").await.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_change_is_written_down_with_whoever_made_it_and_how_it_ended() {
    let endpoint = endpoint("127.0.0.1");
    let reader = endpoint.made("grafana", Role::Reader).await;
    let admin = Some(endpoint.token.expose());
    let ban = json!({ "peer_id": peer().to_string(), "reason": "a secret reason" });
    endpoint.told("POST", "/api/v1/bans?reason=secret", admin, &ban).await;
    endpoint.told("DELETE", "/api/v1/bans/nobody", admin, &Value::Null).await;
    endpoint.told("PUT", "/api/v1/drain", Some(&reader), &Value::Null).await;
    // Neither who reads nor who is a stranger leaves a line.
    endpoint.get("/api/v1/status").await;
    endpoint.told("PUT", "/api/v1/drain", None, &Value::Null).await;
    endpoint.told("PUT", "/api/v1/drain", Some("guess"), &Value::Null).await;
    let told = |who: &str, what: &str, status| (who.to_owned(), what.to_owned(), status);
    let expected = [
        told("grafana", "PUT /api/v1/drain", 403),
        told("admin", "DELETE /api/v1/bans/nobody", 422),
        told("admin", "POST /api/v1/bans", 204),
        told("admin", "POST /api/v1/tokens", 201),
    ];
    assert_eq!(endpoint.log().await, expected);
    let text = json_of(endpoint.get("/api/v1/audit").await).await.to_string();
    assert!(!text.contains("secret") && !text.contains(&reader), "{text}");
}

#[tokio::test]
async fn the_audit_log_is_read_page_by_page() {
    let endpoint = endpoint("127.0.0.1");
    for _ in 0..5 {
        endpoint.told("PUT", "/api/v1/drain", Some(endpoint.token.expose()), &Value::Null).await;
    }
    let mut path = Some("/api/v1/audit?limit=2".to_owned());
    let mut seen = Vec::new();
    while let Some(at) = path.take() {
        let response = endpoint.get(&at).await;
        path = response.headers().get(header::LINK).map(|link| {
            let link = link.to_str().unwrap();
            link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned()
        });
        let page = json_of(response).await;
        seen.extend(page.as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
        // What is written meanwhile is newer than every page that is still to come.
        endpoint.told("DELETE", "/api/v1/drain", Some(endpoint.token.expose()), &Value::Null).await;
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
    for (query, status) in
        [("limit=500", 200), ("limit=501", 400), ("limit=0", 400), ("cursor=x", 400), ("since=1", 400)]
    {
        assert_eq!(endpoint.get(&format!("/api/v1/audit?{query}")).await.status().as_u16(), status, "{query}");
    }
}

#[tokio::test]
async fn whoever_does_not_wait_for_the_answer_is_written_down_all_the_same() {
    let endpoint = endpoint("127.0.0.1");
    let wish = json!({ "name": "ops", "role": "operator" });
    let mut asked = Box::pin(endpoint.told("POST", "/api/v1/tokens", Some(endpoint.token.expose()), &wish));
    // Begun, and left.
    assert!(futures::FutureExt::now_or_never(&mut asked).is_none());
    drop(asked);
    let mut log = endpoint.log().await;
    while log.is_empty() {
        tokio::task::yield_now().await;
        log = endpoint.log().await;
    }
    assert_eq!(log, [("admin".to_owned(), "POST /api/v1/tokens".to_owned(), 201)]);
    assert_eq!(endpoint.keyring.list().len(), 2);
}

#[tokio::test]
async fn what_the_framework_refuses_is_a_problem_too() {
    let endpoint = endpoint("127.0.0.1");
    let token = endpoint.token.expose();
    let request = |method: &str, path: &str, kind: &str, body: String| {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, kind)
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body))
            .unwrap()
    };
    let (json, long) = ("application/json", "x".repeat(super::BODY_BYTES_MAX + 1));
    for (method, path, kind, body, status) in [
        ("GET", "/none", json, "", 404),
        ("GET", "/api/v1/none", json, "", 404),
        ("PATCH", "/api/v1/status", json, "", 405),
        ("POST", "/", json, "", 405),
        ("POST", "/api/v1/bans", json, long.as_str(), 413),
        ("POST", "/api/v1/bans", "text/plain", "{}", 415),
        ("POST", "/api/v1/bans", json, "{", 400),
        ("POST", "/api/v1/bans", json, "{}", 422),
        ("GET", "/api/v1/events?since=x", json, "", 400),
        ("GET", "/api/v1/records/%ff", json, "", 400),
    ] {
        let response = endpoint.send(request(method, path, kind, body.to_owned())).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
        assert_eq!(response.headers().contains_key(header::ALLOW), status == 405, "{method} {path}");
        let problem = json_of(response).await;
        assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{path}");
    }
}

#[tokio::test]
async fn each_list_that_may_grow_takes_a_limit_and_a_cursor_and_refuses_others() {
    let endpoint = endpoint("127.0.0.1");
    for path in ["actors", "peers", "sessions", "bans", "partners", "planner", "outbox", "resources", "events", "audit"]
    {
        for (query, status) in [
            ("limit=1", 200),
            ("limit=500", 200),
            ("limit=0", 400),
            ("limit=501", 400),
            ("cursor=!", 400),
            ("page=2", 400),
        ] {
            let response = endpoint.get(&format!("/api/v1/{path}?{query}")).await;
            assert_eq!(response.status().as_u16(), status, "{path}?{query}");
        }
    }
    let link = endpoint.get("/api/v1/resources?limit=1").await.headers()[header::LINK].to_str().unwrap().to_owned();
    let next = link.strip_prefix('<').unwrap().split('>').next().unwrap();
    assert_eq!(endpoint.get(next).await.status(), StatusCode::OK);
    let after = endpoint.tree.listed.lock().unwrap().last().unwrap().after.clone();
    assert_eq!(after, Some((peer(), "farm-1".to_owned())));
}
