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
