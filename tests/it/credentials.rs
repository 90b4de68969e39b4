//! A member that shows its bus credentials as `nsc` writes them: an operator vouches for accounts, an account for its
//! users, and the server knows nobody's secret.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use async_nats::{ConnectOptions, jetstream};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    bus::envelope,
    harness::{Federation, Nats, PATIENCE, Spec, private_file, until_true},
};

/// Whoever holds a key of NATS: the first letter of its public form says what it is.
struct Holder {
    kind: u8,
    key: SigningKey,
}

const OPERATOR: u8 = 14 << 3;
const ACCOUNT: u8 = 0;
const USER: u8 = 20 << 3;
const SEED: u8 = 18 << 3;

impl Holder {
    fn new(kind: u8, number: u8) -> Self {
        Self { kind, key: SigningKey::from_bytes(&[number; 32]) }
    }

    fn public(&self) -> String {
        let bytes: Vec<u8> = [self.kind].into_iter().chain(*self.key.verifying_key().as_bytes()).collect();
        checked(bytes)
    }

    fn seed(&self) -> String {
        // The letter S takes five bits, the kind the next five.
        let head = [SEED | self.kind >> 5, self.kind << 3];
        checked(head.into_iter().chain(*self.key.as_bytes()).collect())
    }

    /// What it says of another, or of itself.
    fn vouch(&self, of: &Self, name: &str, claims: &Value) -> String {
        let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let body = json!({
            "jti": name, "iat": 1_700_000_000, "iss": self.public(), "sub": of.public(), "name": name, "nats": claims,
        });
        let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encoded(&head), encoded(&body));
        let signature = self.key.sign(text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }

    /// As an account: the file of a user.
    fn credentials(&self, user: &Self) -> String {
        let claims =
            json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2 });
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            self.vouch(user, "user", &claims),
            user.seed()
        )
    }
}

/// With a checksum behind it, in the letters of RFC 4648.
fn checked(mut bytes: Vec<u8>) -> String {
    let sum = bytes.iter().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ u16::from(*byte) << 8, |sum, _| if sum & 0x8000 == 0 { sum << 1 } else { sum << 1 ^ 0x1021 })
    });
    bytes.extend(sum.to_le_bytes());
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let letter = |five: &[u8]| {
        let value = (0..5).fold(0, |value, bit| value << 1 | five.get(bit).copied().unwrap_or_default());
        char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(value)])
    };
    bits.chunks(5).map(letter).collect()
}

/// A server that trusts this operator, and knows these accounts by its word.
fn trusting(operator: &Holder, accounts: &[&Holder]) -> String {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    // The account of the server itself has no streams.
    let claims = |is_system: bool| {
        let mut limits = limits.clone();
        if is_system {
            for what in ["mem_storage", "disk_storage", "streams", "consumer"] {
                limits[what] = json!(0);
            }
        }
        json!({ "limits": limits, "default_permissions": { "pub": {}, "sub": {} }, "type": "account", "version": 2 })
    };
    let lines: Vec<String> = accounts
        .iter()
        .enumerate()
        .map(|(place, account)| {
            format!("  {}: {}", account.public(), operator.vouch(account, "account", &claims(place == 0)))
        })
        .collect();
    let own = operator.vouch(operator, "operator", &json!({ "type": "operator", "version": 2 }));
    format!(
        "operator: {own}\nresolver: MEMORY\nsystem_account: {}\nresolver_preload: {{\n{}\n}}\n",
        accounts[0].public(),
        lines.join("\n")
    )
}

#[test]
fn a_user_of_an_account_that_the_operator_vouches_for_is_on_the_bus_and_nobody_else() {
    let operator = Holder::new(OPERATOR, 1);
    let (system, account, foreign) = (Holder::new(ACCOUNT, 2), Holder::new(ACCOUNT, 3), Holder::new(ACCOUNT, 4));
    let (member, app) = (Holder::new(USER, 5), Holder::new(USER, 6));
    let lines = trusting(&operator, &[&system, &account]);
    let Some(bus) = Nats::configured("a_user_of_an_account", true, &lines) else { return };
    let mut federation = Federation::new();
    federation.add(Spec::indexer("indexer-1")).start();
    let spec = Spec::node("paris").seed(federation.member("indexer-1").address());
    let spec = spec.set("bus.url", &format!("{:?}", bus.url())).set("bus.creds_file", "\"member.creds\"");
    let file = federation.add(spec).dir.join("member.creds");
    // An account of nobody that the server knows.
    private_file(&file, foreign.credentials(&member).as_bytes());
    federation.member_mut("paris").start();
    let paris = federation.member("paris");
    let says = |words: &[&str]| {
        paris.try_status().is_some_and(|status| {
            status.reasons.iter().any(|reason| words.iter().all(|word| reason.to_lowercase().contains(word)))
        })
    };
    until_true("it is refused and says what to do", PATIENCE, || says(&["authorization", "bus.creds_file"]));

    private_file(&file, account.credentials(&member).as_bytes());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    until_true("a file that others can read is not used", PATIENCE, || says(&["its mode is 0640, expected 0600"]));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let view = || paris.try_get::<Value>("/api/v1/bus").unwrap_or_default();
    until_true("it is on the bus", PATIENCE, || view()["mode"].is_string());
    assert_eq!(view()["mode"], "jetstream", "{}", bus.log());
    let seed = member.seed();
    assert!(!paris.log().contains(&seed) && !view().to_string().contains(&seed), "its seed stays in its file");

    Runtime::new().unwrap().block_on(async {
        let credentials = account.credentials(&app);
        let client = ConnectOptions::with_credentials(&credentials).unwrap().connect(bus.url()).await.unwrap();
        let order = envelope("data", &json!({ "id": "farm-1", "kind": "data", "name": "x", "access": "public" }));
        let streams = jetstream::new(client);
        let said = streams.publish("opencloud.create_resource", order.into()).await.unwrap();
        timeout(Duration::from_secs(5), said.into_future()).await.unwrap().unwrap();
        let stranger = ConnectOptions::with_credentials(&foreign.credentials(&app)).unwrap();
        assert!(stranger.connect(bus.url()).await.is_err(), "the server lets nobody else in");
    });
    until_true("an order is carried out", PATIENCE, || view()["taken"].as_u64() == Some(1));
}
