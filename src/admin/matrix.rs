//! The guard, asked over real sockets in every combination of who, by which name, from which page and for what.
#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use rand::{SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::{Keyring, Listener, Role, Rules, Trail, Tree, router, serve, testing::Still};
use crate::keys::AdminToken;

/// A host name, and whether the endpoint is called by it: on loopback, beyond.
const HOSTS: [(&str, bool, bool); 8] = [
    ("localhost:7300", true, false),
    ("127.0.0.1:7300", true, false),
    ("[::1]:7300", true, false),
    ("192.0.2.7:7300", false, true),
    ("cloud.example", true, true),
    ("evil.example", false, false),
    ("localhost.evil.example", false, false),
    ("evil@localhost", false, false),
];

/// An origin as it is told, and whether it may ask.
const ORIGINS: [(Option<&str>, bool); 6] = [
    (None, true),
    (Some("http://HOST"), true),
    (Some("https://HOST"), true),
    (Some("http://evil.example"), false),
    (Some("http://HOST.evil.example"), false),
    (Some("null"), false),
];

/// A question, and the least role that may ask it.
const QUESTIONS: [(&str, &str, Role); 7] = [
    ("GET", "/api/v1/status", Role::Reader),
    ("HEAD", "/", Role::Reader),
    ("GET", "/api/v1/tokens", Role::Reader),
    ("PUT", "/api/v1/drain", Role::Operator),
    ("DELETE", "/api/v1/resources/none", Role::Operator),
    ("DELETE", "/api/v1/tokens/none", Role::Admin),
    ("POST", "/api/v1/chaos/actors/root", Role::Admin),
];

/// What is shown for a token, and for whom that stands.
fn authorizations(admin: &AdminToken, keyring: &Keyring) -> Vec<(Option<String>, Option<Role>)> {
    let mut chance = StdRng::seed_from_u64(9);
    let mut shown: Vec<(Option<String>, Option<Role>)> = Role::ALL
        .into_iter()
        .map(|role| {
            let token = keyring.add(&format!("a-{}", role.name()), role, Timestamp::UNIX_EPOCH, &mut chance).unwrap();
            (Some(format!("Bearer {}", *token)), Some(role))
        })
        .collect();
    shown.extend([
        (None, None),
        (Some(format!("bearer {}", admin.expose())), Some(Role::Admin)),
        (Some(format!("Basic {}", admin.expose())), None),
        (Some(format!("Bearer {}", "0".repeat(64))), None),
        (Some("Bearer".to_owned()), None),
    ]);
    shown
}

async fn status(at: SocketAddr, text: &str) -> u16 {
    let mut socket = TcpStream::connect(at).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("{text} got {answer}"))
}

#[tokio::test]
async fn p7_every_host_origin_method_token_and_role_is_let_in_or_refused_as_the_table_says() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for (ip, is_loopback) in [("127.0.0.1", true), ("192.0.2.7", false)] {
        let folder = tempfile::tempdir().unwrap();
        let admin = AdminToken::read_or_create(folder.path(), &mut StdRng::seed_from_u64(7)).unwrap();
        let keyring = Arc::new(Keyring::open(folder.path(), &admin).unwrap());
        let authorizations = authorizations(&admin, &keyring);
        let trail = Trail::open(folder.path()).unwrap();
        let hosts = vec!["cloud.example".to_owned()];
        let rules = Rules { ip: ip.parse().unwrap(), hosts, keyring, trail, chaos: true };
        let tree = Arc::<Still>::default();
        // Where it really listens is loopback in both: what the guard goes by is what it is told.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, end) = (listener.local_addr().unwrap(), CancellationToken::new());
        let routes = router(Arc::clone(&tree) as Arc<dyn Tree>, rules);
        let serving = tokio::spawn(serve(Listener::Tcp(listener), routes, end.clone()));
        let mut drained = 0;
        for (host, at_home, abroad) in HOSTS {
            let is_known = if is_loopback { at_home } else { abroad };
            for (origin, may_ask) in ORIGINS {
                for (method, path, least) in QUESTIONS {
                    for (authorization, role) in &authorizations {
                        let is_reading = matches!(method, "GET" | "HEAD");
                        let expected = match role {
                            _ if !is_known || !may_ask => Some(403),
                            _ if is_reading && is_loopback => None,
                            None => Some(401),
                            Some(role) if *role < least => Some(403),
                            Some(_) => None,
                        };
                        let origin = origin
                            .map(|origin| format!("Origin: {}\r\n", origin.replace("HOST", host)))
                            .unwrap_or_default();
                        let shown = authorization
                            .as_ref()
                            .map(|shown| format!("Authorization: {shown}\r\n"))
                            .unwrap_or_default();
                        let text = format!(
                            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{origin}{shown}Content-Length: 0\r\nConnection: close\r\n\r\n"
                        );
                        let got = status(at, &text).await;
                        let is_right = match expected {
                            Some(expected) => got == expected,
                            None => got != 401 && got != 403,
                        };
                        cases += 1;
                        drained += usize::from(path == "/api/v1/drain" && expected.is_none());
                        if !is_right {
                            wrong.push(format!("{ip}: got {got}, expected {expected:?} for {text}"));
                        }
                    }
                }
            }
        }
        assert_eq!(tree.drained.lock().unwrap().len(), drained, "and nothing else was changed");
        assert!(tree.removed.lock().unwrap().is_empty() && tree.injected.lock().unwrap().is_empty());
        end.cancel();
        serving.await.unwrap();
    }
    assert!(cases >= 200, "{cases}");
    assert!(wrong.is_empty(), "{} of {cases} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
