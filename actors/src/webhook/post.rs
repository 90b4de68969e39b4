//! One notice over one connection, HTTP or HTTPS, and what the receiver made of it.
//!
//! No more is read of the answer than its head, and no redirect is followed. The address is never said in words: of many
//! services it is the secret.

use std::{io, path::Path, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use protocol::{
    Timestamp,
    webhook::{Attempt, Notice, Secret, SecretError, Settings},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem, pem::PemObject as _},
    },
};
use tokio_util::task::AbortOnDropHandle;

use crate::secret_file::{self, SecretFileError};

/// Bytes of the head of an answer; hyper takes no bound below 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why a notice was not told.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("webhook.url is no address of http or https")]
    Address,
    #[error(transparent)]
    SecretFile(#[from] SecretFileError),
    #[error("webhook.secret_file: {0}")]
    Secret(#[from] SecretError),
    #[error("webhook.tls_ca cannot be read: {0}")]
    Authorities(pem::Error),
    #[error("webhook.url names no host that a certificate could name")]
    Name(#[from] InvalidDnsNameError),
    #[error("the receiver cannot be reached: {0}")]
    Connect(io::Error),
    #[error("the receiver's certificate or its TLS: {0}")]
    Tls(io::Error),
    #[error("no TLS can be spoken: {0}")]
    Config(#[from] rustls::Error),
    #[error("the receiver does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the notice is no HTTP: {0}")]
    Question(#[from] hyper::http::Error),
    #[error("the receiver did not answer within {0:?}")]
    Late(Duration),
}

/// Tells one notice, and waits for the head of the answer.
pub(super) async fn post(settings: &Settings, notice: &Notice, now: Timestamp) -> Attempt {
    let within = settings.answer_within;
    match timeout(within, told(settings, notice, now)).await.unwrap_or(Err(PostError::Late(within))) {
        Ok(attempt) => attempt,
        // Whatever is wrong here, an operator may put it right within the hour.
        Err(error) => Attempt::Failed { cause: error.to_string(), not_before: Duration::ZERO },
    }
}

async fn told(settings: &Settings, notice: &Notice, now: Timestamp) -> Result<Attempt, PostError> {
    let uri: Uri = settings.url.parse().map_err(|_| PostError::Address)?;
    let host = uri.host().ok_or(PostError::Address)?;
    // Brackets belong to the address, not to the host.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let is_secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(PostError::Address),
    };
    let request = request(settings, &uri, notice, now).await?;
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let connect = async || TcpStream::connect((name, port)).await.map_err(PostError::Connect);
    if !is_secure {
        return asked(connect().await?, request).await;
    }
    // What is wrong here is found before anybody is called.
    let server = ServerName::try_from(name.to_owned())?;
    let connector = TlsConnector::from(Arc::new(tls(&settings.tls_ca).await?));
    let stream = connect().await?;
    asked(connector.connect(server, stream).await.map_err(PostError::Tls)?, request).await
}

/// The secret is read for each notice, so that one that was changed needs no restart.
async fn request(
    settings: &Settings,
    uri: &Uri,
    notice: &Notice,
    now: Timestamp,
) -> Result<Request<Full<Bytes>>, PostError> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().ok_or(PostError::Address)?.as_str();
    let mut request = Request::post(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header("webhook-id", &notice.id)
        .header("webhook-timestamp", now.as_second());
    if !settings.secret_file.as_os_str().is_empty() {
        let text = secret_file::read("webhook.secret_file", &settings.secret_file).await?;
        let secret = Secret::read(&text)?;
        request = request.header("webhook-signature", secret.sign(&notice.id, now.as_second(), notice.body.as_bytes()));
    }
    Ok(request.body(Full::new(Bytes::from(notice.body.clone())))?)
}

async fn asked(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Attempt, PostError> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await?;
    // Gone with the answer's head: nobody waits for its body.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    Ok(Attempt::of_status(answer.status().as_u16(), retry_after(&answer)))
}

/// In seconds alone: a date would be measured by two clocks.
fn retry_after<T>(answer: &hyper::Response<T>) -> Option<Duration> {
    let is_asked = matches!(answer.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    is_asked.then(|| Duration::from_secs(seconds))
}

/// Whom the system trusts, and whom the operator does. Files are read anew each time: alerts are rare, certificates change.
async fn tls(authorities: &Path) -> Result<ClientConfig, PostError> {
    let path = authorities.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let mut roots = RootCertStore::empty();
        // One that cannot be read is one that vouches for nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if !path.as_os_str().is_empty() {
            for certificate in CertificateDer::pem_file_iter(&path).map_err(PostError::Authorities)? {
                roots.add(certificate.map_err(PostError::Authorities)?)?;
            }
        }
        Ok::<_, PostError>(roots)
    });
    let roots = looked.await.map_err(|cause| PostError::Connect(io::Error::other(cause)))??;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(config.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests;
