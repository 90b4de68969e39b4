//! `/api/v1/resources`: what we offer, and what partners told us of theirs. A change is on the disk when it is answered.

use std::collections::BTreeMap;

use actors::{
    handle::Wanting,
    sharing::Author,
    view::{ListedView, PlacedView, ResourceView},
};
use axum::{
    Json,
    extract::{
        Path, Query,
        rejection::{PathRejection, QueryRejection, StringRejection},
    },
    http::{HeaderMap, Uri},
};
use protocol::{
    catalogue::{GROUPS_MAX, Kind, RESOURCE_BYTES_MAX},
    event::TEXT_BYTES_MAX,
    json,
};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Shared, cursor, examples,
    openapi::answers,
    problem::Problem,
    question::{kind, limit, peer_or_self, wrong},
};

/// The longest resource, and room for an application's white space between its fields, which is not kept.
pub(crate) const BODY_BYTES_MAX: usize = RESOURCE_BYTES_MAX + 16 * 1024;

/// Which resources are listed.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    /// Part of a name, description or owner.
    text: String,
    /// Only `compute`, `storage`, `processing`, `data` or `workflow`.
    kind: Option<String>,
    /// Only of this creator: a peer id, or `self`.
    creator: Option<String>,
    /// Names the page: `next` of the one before.
    after: Option<String>,
    /// How many, 1 to 500; 100 where nothing is said.
    limit: Option<u32>,
    /// Names the page: that of the `Link` of the one before; the same as `after`.
    cursor: Option<String>,
}

/// What a query says beside the resource. Groups repeat, so it is read as pairs.
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// In whose name something is changed, and the kind where the resource does not tell it.
#[derive(Debug, Default)]
struct Beside {
    author: Author,
    kind: Option<Kind>,
}

impl Beside {
    fn read(pairs: Vec<(String, String)>) -> Result<Self, Problem> {
        let mut beside = Self::default();
        let mut groups = Vec::new();
        let mut is_user_given = false;
        for (name, value) in pairs {
            match name.as_str() {
                "group" if groups.len() == GROUPS_MAX => {
                    return Err(wrong(format!("got more than {GROUPS_MAX} groups, expected at most {GROUPS_MAX}")));
                }
                "group" => groups.push(text("group", value)?),
                "user" if !is_user_given => {
                    is_user_given = true;
                    beside.author.user = text("user", value)?;
                }
                "kind" if beside.kind.is_none() => beside.kind = Some(kind(&value)?),
                "user" | "kind" => return Err(wrong(format!("got {name} twice, expected it once"))),
                _ => return Err(wrong(format!("got the parameter {name:?}, expected user, group or kind"))),
            }
        }
        beside.author.groups = groups.into();
        Ok(beside)
    }
}

/// A user's or a group's name that an event can carry.
pub(super) fn text(what: &str, value: String) -> Result<String, Problem> {
    if value.is_empty() || value.len() > TEXT_BYTES_MAX || value.contains(char::is_control) {
        let words = format!("got a {what} of {} bytes", value.len());
        return Err(wrong(format!("{words}, expected 1 to {TEXT_BYTES_MAX} without control characters")));
    }
    Ok(value)
}

/// A page of what is held here.
#[utoipa::path(
    get,
    path = "/api/v1/resources",
    summary = "Resources that are held here, ours and those that partners told us",
    params(Question),
    responses(
        (status = 200, description = "A page", body = answers::ListedView, example = json!(examples::resources())),
    ),
)]
pub(super) async fn list(
    tree: Shared,
    uri: Uri,
    question: Result<Query<Question>, QueryRejection>,
) -> Result<(HeaderMap, Json<ListedView>), Problem> {
    let Query(mut question) = question?;
    if let Some(cursor) = question.cursor.take() {
        let after = cursor::read::<String>(&cursor)?;
        if question.after.replace(after).is_some() {
            return Err(wrong("got after beside a cursor, expected one of them"));
        }
    }
    let own = tree.peer_id();
    let after = |after: &String| {
        let (creator, id) = after
            .split_once('/')
            .ok_or_else(|| wrong(format!("got after {after:?}, expected a creator and an id with / between them")))?;
        Ok::<_, Problem>((peer_or_self(creator, own)?, id.to_owned()))
    };
    if question.after.is_some() && !question.text.trim().is_empty() {
        return Err(wrong("got after beside a text, expected one of them: what is found by its text has no next page"));
    }
    let wanting = Wanting {
        kind: question.kind.as_deref().map(kind).transpose()?,
        creator: question.creator.map(|creator| peer_or_self(&creator, own)).transpose()?,
        after: question.after.as_ref().map(after).transpose()?,
        limit: limit(question.limit)?,
        text: question.text,
    };
    let listed = tree.resources(wanting).await?;
    Ok((cursor::next(&uri, listed.next.as_ref()), Json(listed)))
}

/// One that is held here, or 404.
#[utoipa::path(
    get,
    path = "/api/v1/resources/{creator}/{id}",
    summary = "One resource that is held here",
    params(
        ("creator" = String, Path, description = "A peer id, or `self`", example = "self"),
        ("id" = String, Path, description = "The resource's", example = "farm-1"),
    ),
    responses(
        (
            status = 200,
            description = "The resource",
            body = answers::ResourceView,
            example = json!(examples::resource()),
        ),
    ),
)]
pub(super) async fn show(
    tree: Shared,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<ResourceView>, Problem> {
    let Path((creator, id)) = path?;
    Ok(Json(tree.resource(peer_or_self(&creator, tree.peer_id())?, &id).await?))
}

/// A resource of ours, as it is from now on. Its JSON is read whatever its Content-Type says.
#[utoipa::path(
    put,
    path = "/api/v1/resources/{id}",
    summary = "Keeps a resource of ours as it is from now on",
    params(
        ("id" = String, Path, description = "The resource's", example = "farm-1"),
        ("kind" = Option<String>, Query, description = "Where the resource does not tell it"),
        ("user" = Option<String>, Query, description = "In whose name"),
        ("group" = Option<Vec<String>>, Query, description = "Of which groups; repeats"),
    ),
    request_body(content = Object, example = json!({ "kind": "compute", "name": "Farm", "access": "public" })),
    responses(
        (
            status = 200,
            description = "It is written down, and partners that may see it hear of it",
            body = answers::PlacedView,
            example = json!(examples::placed()),
        ),
    ),
)]
pub(super) async fn put(
    tree: Shared,
    id: Result<Path<String>, PathRejection>,
    pairs: Pairs,
    body: Result<String, StringRejection>,
) -> Result<Json<PlacedView>, Problem> {
    let (Path(id), Query(pairs)) = (id?, pairs?);
    let Beside { author, kind } = Beside::read(pairs)?;
    let text = named(&id, &body?)?;
    Ok(Json(tree.put_resource(&text, kind, author).await?))
}

/// A resource of ours is gone; 404 when there was none.
#[utoipa::path(
    delete,
    path = "/api/v1/resources/{id}",
    summary = "Lets a resource of ours go",
    params(
        ("id" = String, Path, description = "The resource's", example = "farm-1"),
        ("user" = Option<String>, Query, description = "In whose name"),
        ("group" = Option<Vec<String>>, Query, description = "Of which groups; repeats"),
    ),
    responses(
        (
            status = 200,
            description = "It is gone, and partners that could see it hear of it",
            body = answers::PlacedView,
            example = json!(examples::placed()),
        ),
    ),
)]
pub(super) async fn remove(
    tree: Shared,
    id: Result<Path<String>, PathRejection>,
    pairs: Pairs,
) -> Result<Json<PlacedView>, Problem> {
    let (Path(id), Query(pairs)) = (id?, pairs?);
    let Beside { author, kind } = Beside::read(pairs)?;
    if kind.is_some() {
        return Err(wrong("got a kind, expected none: an id is enough to remove a resource"));
    }
    Ok(Json(tree.remove_resource(&id, author).await?))
}

/// The resource with its id, which the path has told already.
fn named(id: &str, body: &str) -> Result<String, Problem> {
    // People write over several lines; JSON has line feeds between values only.
    let body = body.replace(['\r', '\n'], " ");
    let mut fields: BTreeMap<String, Box<RawValue>> = json::parse(body.as_bytes(), BODY_BYTES_MAX).map_err(wrong)?;
    let given = fields.get("id").map_or("null", |given| given.get());
    match serde_json::from_str::<Option<String>>(given) {
        Ok(Some(given)) if given == id => {}
        Ok(None) => drop(fields.insert("id".to_owned(), to_raw_value(id).map_err(wrong)?)),
        _ => {
            let given: String = given.chars().take(64).collect();
            return Err(wrong(format!("got the id {given} in the body, expected {id:?} as in the path, or none")));
        }
    }
    serde_json::to_string(&fields).map_err(wrong)
}
