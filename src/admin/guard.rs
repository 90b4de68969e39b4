//! Who may ask: the right host name, no foreign page, and where it is needed a token whose role is enough. What changes
//! state is written down, with whoever did it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;

use super::{
    keyring::{Caller, Keyring},
    problem::Problem,
    roles,
    trail::{Change, Trail},
};

/// What the guard goes by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Where the endpoint listens.
    pub(crate) ip: IpAddr,
    /// Further host names by which it may be called.
    pub(crate) hosts: Vec<String>,
    /// What changes state needs one of these; everything does when the endpoint is not on loopback.
    pub(crate) keyring: Arc<Keyring>,
    /// Where changes are written down.
    pub(crate) trail: Trail,
    /// Faults may be injected.
    pub(crate) chaos: bool,
}

/// Why a question is not let through, and who asked it if that is known.
#[derive(Debug)]
struct Refusal {
    problem: Problem,
    caller: Option<Caller>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, caller: None }
    }
}

/// Lets a question through, or says why not.
pub(super) async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    let verdict = rules.verdict(request.method(), request.uri(), request.headers());
    if reads(request.method()) {
        return match verdict {
            Ok(_) => next.run(request).await,
            Err(refusal) => refusal.problem.into_response(),
        };
    }
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let change = |caller: Caller| Change { who: caller.name, role: caller.role, method, path };
    let trail = rules.trail.clone();
    match verdict {
        Ok(Some(caller)) => {
            let change = change(caller);
            // To its end and into the log, even if whoever asked does not wait for the answer.
            let changing = tokio::spawn(async move {
                let response = next.run(request).await;
                trail.note(change, response.status().as_u16(), Timestamp::now()).await;
                response
            });
            changing.await.unwrap_or_else(|_| {
                // The panic hook has told why.
                let words = "this failed in a way that it never should; the log says more";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, words).into_response()
            })
        }
        // Nothing changes without a token.
        Ok(None) => Problem::new(StatusCode::UNAUTHORIZED, MISSING).into_response(),
        Err(Refusal { problem, caller: Some(caller) }) => {
            let response = problem.into_response();
            trail.note(change(caller), response.status().as_u16(), Timestamp::now()).await;
            response
        }
        Err(Refusal { problem, caller: None }) => problem.into_response(),
    }
}

/// What is said to whoever shows no token.
const MISSING: &str = "this needs a token, such as that of data/admin.token: \"Authorization: Bearer …\"";

/// Whether this method only reads.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

impl Rules {
    fn verdict(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
        let host = self.host(uri, headers)?;
        check_origin(&host, headers)?;
        if reads(method) && self.ip.is_loopback() {
            return Ok(None);
        }
        let caller = self.caller(headers)?;
        let needed = roles::needed(method.as_str(), uri.path());
        if caller.role >= needed {
            return Ok(Some(caller));
        }
        let Caller { name, role } = &caller;
        let words =
            format!("this needs the role {}, and the token {name:?} has the role {}", needed.name(), role.name());
        Err(Refusal { problem: Problem::new(StatusCode::FORBIDDEN, words), caller: Some(caller) })
    }

    /// A page that made its own name resolve to our address (DNS rebinding) still calls us by that name.
    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<Authority, Problem> {
        let host = single(headers, header::HOST)?
            .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the question has no Host header"))?;
        let host: Authority =
            host.parse().map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the Host header cannot be read"))?;
        for named in [Some(&host), uri.authority()].into_iter().flatten() {
            if !self.knows(named) {
                let words = "this endpoint is not called by that name; localhost and its address are known, \
                             others are set by admin.hosts";
                return Err(Problem::new(StatusCode::FORBIDDEN, words));
            }
        }
        Ok(host)
    }

    fn knows(&self, authority: &Authority) -> bool {
        // User names have no place here, and hide the host from hasty readers.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // An address was typed, not resolved: no name could have been rebound.
            Ok(ip) => ip == self.ip || (ip.is_loopback() && self.hears_loopback()) || self.ip.is_unspecified(),
            Err(_) => {
                let is = |name: &str| host.eq_ignore_ascii_case(name);
                (is("localhost") && self.hears_loopback()) || self.hosts.iter().any(|name| is(name))
            }
        }
    }

    fn hears_loopback(&self) -> bool {
        self.ip.is_loopback() || self.ip.is_unspecified()
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let refused = |words: &str| Problem::new(StatusCode::UNAUTHORIZED, words);
        let given = single(headers, header::AUTHORIZATION)?.ok_or_else(|| refused(MISSING))?;
        let (scheme, given) = given.split_once(' ').unwrap_or_default();
        let caller = self.keyring.caller(given.trim());
        caller
            .filter(|_| scheme.eq_ignore_ascii_case("bearer"))
            .ok_or_else(|| refused("the token is neither that of data/admin.token nor one that was made here"))
    }
}

/// A browser tells which page asks; only our own may.
fn check_origin(host: &Authority, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = single(headers, header::ORIGIN)? else { return Ok(()) };
    let asker = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if asker.is_some_and(|asker| asker.eq_ignore_ascii_case(host.as_str())) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "pages of other origins may not ask"))
}

/// The header's text; two of a kind could be read as one thing here and as another elsewhere.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&name).iter();
    let (first, second) = (values.next(), values.next());
    let broken = || Problem::new(StatusCode::BAD_REQUEST, format!("the header {name} cannot be read"));
    if second.is_some() {
        return Err(broken());
    }
    first.map(|value| value.to_str().map_err(|_| broken())).transpose()
}
