//! Receivers of many kinds, over real connections.

#![allow(clippy::unwrap_used)]

use std::{net::SocketAddr, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use super::*;

const BODY: &str = "{\"type\":\"alert.raised\"}";

fn notice() -> Notice {
    Notice { id: "alert-1".to_owned(), body: BODY.to_owned() }
}

fn settings(url: String) -> Settings {
    Settings { url, answer_within: Duration::from_secs(20), ..Settings::default() }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

/// Hears one question, answers this, and tells what it heard.
async fn receiver(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        heard(&mut stream, answer).await
    });
    (address, heard)
}

async fn heard(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(BODY.as_bytes()) {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await.unwrap();
        assert!(read > 0, "ended after {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&part[..read]);
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    String::from_utf8(heard).unwrap()
}

fn cause(attempt: Attempt) -> String {
    match attempt {
        Attempt::Failed { cause, .. } | Attempt::Refused { cause } => cause,
        Attempt::Taken => panic!("it was taken"),
    }
}

#[tokio::test]
async fn a_notice_is_posted_with_its_name_its_time_and_its_signature() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (address, heard) = receiver("HTTP/1.1 204 No Content\r\n\r\n").await;
    let settings = Settings { secret_file, ..settings(format!("http://{address}/hooks/geheim?by=muster")) };
    assert_eq!(post(&settings, &notice(), now()).await, Attempt::Taken);
    let heard = heard.await.unwrap();
    let secret = Secret::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let signature = secret.sign("alert-1", 1_700_000_000, BODY.as_bytes());
    for line in [
        "POST /hooks/geheim?by=muster HTTP/1.1",
        &format!("host: {address}"),
        "content-type: application/json",
        "webhook-id: alert-1",
        "webhook-timestamp: 1700000000",
        &format!("webhook-signature: {signature}"),
    ] {
        assert!(heard.lines().any(|it| it == line), "{line}: {heard}");
    }
    assert!(!heard.contains("whsec_"), "the secret itself never travels");
}

#[tokio::test]
async fn a_secret_that_others_can_read_signs_nothing_and_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, "geheim-geheim-geheim").unwrap();
    std::fs::set_permissions(&secret_file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let settings = Settings { secret_file, ..settings("http://127.0.0.1:1/".to_owned()) };
    let cause = cause(post(&settings, &notice(), now()).await);
    assert!(cause.contains("its mode is 0640, expected 0600") && !cause.contains("geheim-"), "{cause}");
}

#[tokio::test]
async fn a_redirect_is_refused_and_nobody_is_asked_where_it_leads() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let answer = format!("HTTP/1.1 307 X\r\nlocation: http://{}/\r\n\r\n", elsewhere.local_addr().unwrap());
    let (address, heard) = receiver(Box::leak(answer.into_boxed_str())).await;
    let attempt = post(&settings(format!("http://{address}/")), &notice(), now()).await;
    assert!(matches!(&attempt, Attempt::Refused { cause } if cause.contains("307")), "{attempt:?}");
    heard.await.unwrap();
    let asked = tokio::time::timeout(Duration::from_millis(100), elsewhere.accept()).await;
    assert!(asked.is_err(), "somebody came");
}

#[tokio::test]
async fn a_busy_receiver_says_when_it_wants_to_be_asked_again() {
    let (address, _heard) = receiver("HTTP/1.1 503 X\r\nretry-after: 7\r\n\r\n").await;
    let attempt = post(&settings(format!("http://{address}/")), &notice(), now()).await;
    assert!(matches!(attempt, Attempt::Failed { not_before, .. } if not_before == Duration::from_secs(7)));
}

#[tokio::test]
async fn a_receiver_that_is_silent_away_or_no_server_fails_and_its_address_is_not_said() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let quick = |url: String| Settings { answer_within: Duration::from_millis(200), ..settings(url) };
    let late = cause(post(&quick(format!("http://{}/geheim", silent.local_addr().unwrap())), &notice(), now()).await);
    assert!(late.contains("did not answer within 200ms"), "{late}");
    let away = cause(post(&settings("http://127.0.0.1:1/geheim".to_owned()), &notice(), now()).await);
    assert!(away.contains("cannot be reached"), "{away}");
    let (address, _heard) = receiver("I am no server\r\n\r\n").await;
    let no_server = cause(post(&settings(format!("http://{address}/geheim")), &notice(), now()).await);
    assert!(no_server.contains("does not speak HTTP"), "{no_server}");
    let (address, _heard) = receiver("HTTP/1.1 200 OK\r\nx: ").await;
    let cut = cause(post(&quick(format!("http://{address}/geheim")), &notice(), now()).await);
    for cause in [late, away, no_server, cut] {
        assert!(!cause.contains("geheim"), "{cause}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_read_no_further_than_its_bound() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX + 1));
    let (address, _heard) = receiver(Box::leak(long.into_boxed_str())).await;
    let cause = cause(post(&settings(format!("http://{address}/")), &notice(), now()).await);
    assert!(cause.contains("does not speak HTTP"), "{cause}");
}

/// An authority and a server's certificate; nothing where there is no openssl to make them.
fn certificates(folder: &Path) -> Option<[PathBuf; 3]> {
    let openssl = |args: &str| {
        let made = Command::new("openssl").args(args.split(' ')).current_dir(folder).output();
        made.is_ok_and(|made| made.status.success()).then_some(())
    };
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=authority -days 2"))?;
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=server"))?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names",
    )?;
    Some(["ca.pem", "server.pem", "server.key"].map(|name| folder.join(name)))
}

#[tokio::test]
async fn over_https_only_a_receiver_that_is_vouched_for_hears_anything() {
    let folder = tempfile::tempdir().unwrap();
    let Some([authority, certificate, key]) = certificates(folder.path()) else {
        eprintln!("skipped: there is no openssl to make certificates with");
        return;
    };
    let chain = CertificateDer::pem_file_iter(&certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(stream).await.is_err(), "it is not believed");
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        heard(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await
    });
    let settings = settings(format!("https://{address}/"));
    let stranger = cause(post(&settings, &notice(), now()).await);
    assert!(stranger.contains("certificate"), "{stranger}");
    let settings = Settings { tls_ca: authority, ..settings };
    assert_eq!(post(&settings, &notice(), now()).await, Attempt::Taken);
    assert!(server.await.unwrap().ends_with(BODY));
    let settings = Settings { tls_ca: folder.path().join("nowhere"), ..settings };
    let nowhere = cause(post(&settings, &notice(), now()).await);
    assert!(nowhere.contains("webhook.tls_ca cannot be read"), "{nowhere}");
}
