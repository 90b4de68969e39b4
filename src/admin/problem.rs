//! What is answered when nothing else can be: RFC 9457.

use actors::handle::AskError;
use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection, StringRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::keyring::KeyringError;

/// Seconds after which a busy or restarting actor is likely to answer.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// A problem, in the words of its standard.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what sort of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// What happened, and where it helps what was expected.
    detail: String,
}

impl Problem {
    /// Its status.
    #[cfg(test)]
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// A problem with this status, in words.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
        }
    }
}

/// The media type of a problem.
pub(super) const PROBLEM: &str = "application/problem+json";

impl Problem {
    /// How a description of the API tells of a problem with this status.
    pub(super) fn described(status: u16, words: &str) -> Value {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Self::new(status, words);
        json!({
            "description": problem.title,
            "content": { PROBLEM: {
                "schema": { "$ref": "#/components/schemas/Problem" },
                "example": problem,
            } },
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        match status {
            StatusCode::UNAUTHORIZED => {
                drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(header::RETRY_AFTER, RETRY_AFTER)),
            _ => {}
        }
        response
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let status = match error {
            AskError::Busy { .. } | AskError::Away { .. } | AskError::NotYet(_) => StatusCode::SERVICE_UNAVAILABLE,
            AskError::Late { .. } => StatusCode::GATEWAY_TIMEOUT,
            AskError::Invalid(_) => StatusCode::BAD_REQUEST,
            AskError::Unknown { .. } => StatusCode::NOT_FOUND,
        };
        Self::new(status, error.to_string())
    }
}

impl From<KeyringError> for Problem {
    fn from(error: KeyringError) -> Self {
        let status = match error {
            KeyringError::Name(_) => StatusCode::UNPROCESSABLE_ENTITY,
            KeyringError::Taken(_) | KeyringError::Full => StatusCode::CONFLICT,
            KeyringError::File(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<StringRejection> for Problem {
    fn from(rejection: StringRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// Puts into the words of the standard what the framework said in its own: a body that is too long, a handler that took too
/// long.
pub(super) async fn tidied(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_plain = kind.is_none_or(|kind| kind.starts_with("text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_plain {
        return response;
    }
    let words = match status {
        StatusCode::PAYLOAD_TOO_LARGE => "the body is longer than is taken here",
        StatusCode::GATEWAY_TIMEOUT => "the answer took too long; `muster tree` shows which actor is stuck",
        _ => "the question was not understood",
    };
    let mut tidied = Problem::new(status, words).into_response();
    if let Some(allow) = response.headers().get(header::ALLOW) {
        tidied.headers_mut().insert(header::ALLOW, allow.clone());
    }
    tidied
}

/// Nothing lives there.
pub(super) async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

/// Something lives there and does not understand the method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not understand {method}", uri.path()))
}
