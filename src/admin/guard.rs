//! Who may ask: the right host name, no foreign page, and the token where it is needed.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use crate::keys::AdminToken;

/// What the guard goes by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Where the endpoint listens.
    pub(crate) ip: IpAddr,
    /// Further host names by which it may be called.
    pub(crate) hosts: Vec<String>,
    /// What changes state needs this; everything does when the endpoint is not on loopback.
    pub(crate) token: AdminToken,
    /// Faults may be injected.
    pub(crate) chaos: bool,
}

/// Lets a question through, or says why not.
pub(super) async fn check(State(rules): State<Arc<Rules>>, request: Request, next: Next) -> Response {
    match rules.verdict(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Rules {
    fn verdict(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
        let host = self.host(uri, headers)?;
        check_origin(&host, headers)?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if reads && self.ip.is_loopback() {
            return Ok(());
        }
        self.check_token(headers)
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

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let refused = |words: &str| Problem::new(StatusCode::UNAUTHORIZED, words);
        let given = single(headers, header::AUTHORIZATION)?
            .ok_or_else(|| refused("this needs the token of data/admin.token: \"Authorization: Bearer …\""))?;
        let (scheme, given) = given.split_once(' ').unwrap_or_default();
        let is_ours = given.trim().as_bytes().ct_eq(self.token.expose().as_bytes());
        if scheme.eq_ignore_ascii_case("bearer") && bool::from(is_ours) {
            return Ok(());
        }
        Err(refused("the token is not that of data/admin.token"))
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
