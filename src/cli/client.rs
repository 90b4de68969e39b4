//! Asks a daemon through its admin endpoint: one connection per question, each with a deadline.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    net::{TcpStream, UnixStream},
    task::AbortHandle,
    time::timeout,
};
use tokio_util::either::Either;

use super::exit::{Exit, Failure};

/// Loopback answers at once; a remote admin endpoint within a round trip or two.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// Longer than the daemon gives itself to answer (10 s), so that its own words arrive.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);
/// A running search says something at least every 15 s: the endpoint keeps the stream alive.
const SILENCE_DEADLINE: Duration = Duration::from_secs(40);
/// The list of every peer of the largest network planned for, 100,000 rows of 500 bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Where a daemon answers, and the token to show.
#[derive(Clone)]
pub(crate) struct Client {
    authority: String,
    /// Reached by this socket instead.
    socket: Option<PathBuf>,
    token: Option<String>,
}

impl fmt::Debug for Client {
    // Written by hand so that the token is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// What the endpoint says when it does not answer: RFC 9457.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

impl Client {
    /// A client of the endpoint at `authority`: `127.0.0.1:7300`.
    pub(crate) fn to(authority: impl Into<String>) -> Self {
        Self { authority: authority.into(), socket: None, token: None }
    }

    /// A client of the endpoint behind the Unix socket at this path.
    pub(crate) fn to_socket(path: impl AsRef<Path>) -> Self {
        let socket = Some(path.as_ref().to_owned());
        Self { authority: "localhost".to_owned(), socket, token: None }
    }

    /// Shows this token with every question.
    #[must_use]
    pub(crate) fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// A client of the endpoint at this URL.
    pub(crate) fn from_url(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::new(Exit::Usage, format!("\"{url}\" is no admin address"))
                .why(why)
                .next("give it as http://HOST:PORT, for example http://127.0.0.1:7300, or as unix:/PATH")
        };
        if let Some(path) = url.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong("it has no path")) } else { Ok(Self::to_socket(path)) };
        }
        let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = whole.parse().map_err(|_| wrong("it cannot be read"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("the admin endpoint speaks plain HTTP on loopback; reach a remote one through a tunnel"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.port_u16().is_none() {
            return Err(wrong("it has no port"));
        }
        Ok(Self::to(authority.as_str()))
    }

    /// The address.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks for `path` and reads the answer as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.exchange(Method::GET, path, None).await
    }

    /// Asks for `path` and reads the answer as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let body = timeout(ANSWER_DEADLINE, self.fetch(Method::GET, path, None));
        let body = body.await.map_err(|_| self.late(ANSWER_DEADLINE))??;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Tells it to change something, and reads the answer as JSON.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, Failure> {
        self.exchange(method, path, body).await
    }

    /// Tells it to change something; the answer has nothing to read.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Result<(), Failure> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let sent = async {
            let (answer, _connection) = self.ask(method, path, "application/json", body).await?;
            self.accepted(path, answer).await?;
            Ok(())
        };
        timeout(ANSWER_DEADLINE, sent).await.map_err(|_| self.late(ANSWER_DEADLINE))?
    }

    /// Asks for `path` and reads events as they come; an error ends the stream.
    pub(crate) async fn stream(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Event, Failure>> + use<>, Failure> {
        let (answer, connection) = timeout(ANSWER_DEADLINE, self.ask(Method::GET, path, "text/event-stream", None))
            .await
            .map_err(|_| self.late(ANSWER_DEADLINE))??;
        let answer = self.accepted(path, answer).await?;
        let bytes = BodyStream::new(answer.into_body())
            .filter_map(|frame| async move { frame.map(|frame| frame.into_data().ok()).transpose() });
        let client = self.clone();
        let events = unsilent(Box::pin(bytes.eventsource()), client);
        // The connection lives exactly as long as its stream.
        Ok(events.map(move |event| {
            let _ = &connection;
            event
        }))
    }

    async fn connect(&self) -> io::Result<Either<TcpStream, UnixStream>> {
        match &self.socket {
            Some(path) => UnixStream::connect(path).await.map(Either::Right),
            None => TcpStream::connect(&self.authority).await.map(Either::Left),
        }
    }

    /// Where it is, in words.
    fn place(&self) -> String {
        self.socket.as_ref().map_or_else(|| self.authority.clone(), |path| format!("unix:{}", path.display()))
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, Failure> {
        let body = timeout(ANSWER_DEADLINE, self.fetch(method, path, body));
        let body = body.await.map_err(|_| self.late(ANSWER_DEADLINE))??;
        serde_json::from_slice(&body).map_err(|cause| {
            Failure::new(Exit::Failed, format!("{} answered {path} with something else", self.place()))
                .why(cause.to_string())
                .next("is it a muster of the same version? `curl` the address and look")
        })
    }

    async fn fetch(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, Failure> {
        let (answer, _connection) = self.ask(method, path, "application/json", body).await?;
        let answer = self.accepted(path, answer).await?;
        self.body(answer).await
    }

    async fn body(&self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        body.collect().await.map(http_body_util::Collected::to_bytes).map_err(|cause| self.cut_off(&cause.to_string()))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Option<Bytes>,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let socket = timeout(CONNECT_DEADLINE, self.connect())
            .await
            .map_err(|_| self.unreachable(&io::ErrorKind::TimedOut.into()))?
            .map_err(|cause| self.unreachable(&cause))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(socket)).await.map_err(|cause| self.cut_off(&cause.to_string()))?;
        let connection = Connection(tokio::spawn(connection).abort_handle());
        let request = self.request(method, path, accept, body)?;
        let answer = sender.send_request(request).await.map_err(|cause| self.cut_off(&cause.to_string()))?;
        Ok((answer, connection))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, &self.authority).header(ACCEPT, accept);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::new(Exit::Usage, "the admin token holds characters that no token has"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|cause| Failure::new(Exit::Usage, format!("cannot ask for {path}")).why(cause.to_string()))
    }

    /// Passes a good answer on and turns any other into an end of the verb.
    async fn accepted(&self, path: &str, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let problem: Problem = serde_json::from_slice(&self.body(answer).await?).unwrap_or_default();
        Err(self.refused(path, status, &problem))
    }

    fn refused(&self, path: &str, status: StatusCode, problem: &Problem) -> Failure {
        let who = self.place();
        let words = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
        let words = if words.is_empty() { format!("{who} answered {path} with {status}") } else { words.clone() };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::new(Exit::NotAllowed, words)
                .next("use --config FILE as the user that runs the daemon, or set MUSTER_ADMIN_TOKEN"),
            StatusCode::NOT_FOUND => Failure::new(Exit::NotFound, words),
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => {
                Failure::new(Exit::TimedOut, words).next("`muster tree` shows which actor is stuck")
            }
            StatusCode::SERVICE_UNAVAILABLE => Failure::new(Exit::Refused, words).next("try again in a moment"),
            StatusCode::CONFLICT => Failure::new(Exit::Refused, words),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::new(Exit::Usage, words)
            }
            _ => Failure::new(Exit::Failed, words),
        }
    }

    fn unreachable(&self, cause: &io::Error) -> Failure {
        Failure::new(Exit::Unreachable, format!("no daemon answers at {}", self.place()))
            .why(cause.to_string())
            .next("start it with `muster run --config FILE`, or name another with --config, --admin or --demo")
    }

    fn cut_off(&self, cause: &str) -> Failure {
        Failure::new(Exit::Unreachable, format!("{} ended the conversation", self.place()))
            .why(cause)
            .next("is it a muster, and is it still running? `muster status` tells")
    }

    fn late(&self, after: Duration) -> Failure {
        Failure::new(Exit::TimedOut, format!("{} did not answer within {} s", self.place(), after.as_secs()))
            .next("`muster tree` shows which actor is stuck; the log says why")
    }
}

/// The task that drives a connection; it ends with the question.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Ends a stream of events that has gone silent.
fn unsilent<E: fmt::Display>(
    events: impl Stream<Item = Result<Event, E>> + Unpin,
    client: Client,
) -> impl Stream<Item = Result<Event, Failure>> {
    futures::stream::unfold(Some((events, client)), |state| async move {
        let (mut events, client) = state?;
        match timeout(SILENCE_DEADLINE, events.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(event))) => Some((Ok(event), Some((events, client)))),
            Ok(Some(Err(cause))) => Some((Err(client.cut_off(&cause.to_string())), None)),
            Err(_) => Some((Err(client.late(SILENCE_DEADLINE)), None)),
        }
    })
}

/// Writes `text` so that it can stand in a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    use fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        for url in ["http://127.0.0.1:7300", "http://127.0.0.1:7300/", "127.0.0.1:7300"] {
            assert_eq!(Client::from_url(url).unwrap().authority(), "127.0.0.1:7300", "{url}");
        }
        assert_eq!(Client::from_url("http://[::1]:7300").unwrap().authority(), "[::1]:7300");
    }

    #[test]
    fn a_socket_is_named_by_its_path() {
        let client = Client::from_url("unix:/run/muster/admin.sock").unwrap();
        assert_eq!(client.socket.as_deref(), Some(Path::new("/run/muster/admin.sock")));
        assert_eq!((client.place().as_str(), client.authority()), ("unix:/run/muster/admin.sock", "localhost"));
    }

    #[test]
    fn what_is_no_address_is_a_usage_error() {
        for url in
            ["", "unix:", "http://", "http://localhost", "https://localhost:7300", "http://localhost:7300/api", "a b"]
        {
            assert_eq!(Client::from_url(url).unwrap_err().exit, Exit::Usage, "{url}");
        }
    }

    #[test]
    fn text_is_escaped_for_paths_and_queries() {
        assert_eq!(escaped("did:key:z6Mk a/b?c&d=é"), "did%3Akey%3Az6Mk%20a%2Fb%3Fc%26d%3D%C3%A9");
    }

    #[test]
    fn the_token_is_never_shown() {
        let client = Client::to("127.0.0.1:1").with_token(Some("secret".to_owned()));
        assert!(!format!("{client:?}").contains("secret"));
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let client = Client::to("127.0.0.1:1");
        for (status, exit) in [
            (400, Exit::Usage),
            (401, Exit::NotAllowed),
            (403, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (413, Exit::Usage),
            (503, Exit::Refused),
            (504, Exit::TimedOut),
            (500, Exit::Failed),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(client.refused("/x", status, &Problem::default()).exit, exit, "{status}");
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = Client::to(free.to_string()).get::<serde_json::Value>("/").await.unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable);
    }
}
