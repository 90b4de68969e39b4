//! `/api/v1/openapi.json`: what every resource is asked and answers, written beside its handler and put together here.
//!
//! utoipa knows paths, parameters and answers; the shapes of what is answered are read off the types themselves by
//! schemars, so that the tree's views need to know nothing of HTTP. What the guard and the framework answer in place of a
//! resource is the same everywhere, and is added here.

use std::sync::LazyLock;

use axum::{http::header, response::IntoResponse};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::problem::Problem;

/// What the document says of all of it.
const ABOUT: &str = "The admin endpoint of a muster member. It listens on loopback, and on a Unix socket where one is set. \
    Reading there needs no token; whatever changes state does, and beyond loopback everything does. A question has to call \
    the endpoint by a name that it knows (`Host`), and pages of other origins are refused (`Origin`).";

/// The token, as the document calls it.
const BEARER: &str = "bearer";

/// What stands in place of an answer anywhere: status and words of an example.
const ANYWHERE: [(u16, &str); 5] = [
    (400, "got a limit of 0, expected 1 to 500"),
    (401, "this needs the token of data/admin.token: \"Authorization: Bearer …\""),
    (403, "pages of other origins may not ask"),
    (503, "root/node/pool is away"),
    (504, "root/node/pool did not answer within 2s"),
];

/// The same where a path names something.
const NAMED: (u16, &str) = (404, "no such ban: 12D3KooWAbEtX8DWy98D7SxNW4bLgU3vYxdEvsEk15AcwqKz7aHg");

/// The same where something is sent.
const SENT: [(u16, &str); 3] = [
    (413, "the body is longer than is taken here"),
    (415, "expected the header Content-Type: application/json"),
    (422, "\"paris\" is no peer id"),
];

/// Names for the types whose shapes the document holds, for the descriptions of handlers to refer to.
macro_rules! shapes {
    ($($name:ident: $type:ty,)+) => {
        $(
            /// Stands for the type of this name where an answer or a body is described.
            pub(in crate::admin) struct $name;

            impl utoipa::PartialSchema for $name {
                // A place for the shape itself, which is put there by `document`.
                fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                    utoipa::openapi::Object::new().into()
                }
            }

            impl utoipa::ToSchema for $name {}
        )+

        fn read(generator: &mut SchemaGenerator) {
            $(generator.subschema_for::<$type>();)+
        }
    };
}

/// The shapes of what is answered.
pub(super) mod answers {
    use actors::view;
    use schemars::SchemaGenerator;

    use crate::admin;

    shapes! {
        ActorView: view::ActorView,
        AlertView: view::AlertView,
        AuditEntry: admin::trail::Entry,
        BanView: view::BanView,
        BinView: view::BinView,
        BridgeView: view::BridgeView,
        CurveView: view::CurveView,
        EventView: view::EventView,
        ExplainView: view::ExplainView,
        IndexerView: view::IndexerView,
        ListedView: view::ListedView,
        NewToken: admin::tokens::NewToken,
        OutboxView: view::OutboxView,
        PeerView: view::PeerView,
        PlacedView: view::PlacedView,
        PlanView: view::PlanView,
        Problem: admin::problem::Problem,
        Ready: admin::health::Ready,
        RecordView: view::RecordView,
        RelationView: view::RelationView,
        ReportView: view::ReportView,
        ResourceStep: view::ResourceStep,
        ResourceView: view::ResourceView,
        RevocationView: view::RevocationView,
        SampleView: view::SampleView,
        SearchView: view::SearchView,
        SessionView: view::SessionView,
        SettingView: crate::live::Shown,
        SettingsChanged: crate::live::Changed,
        StatusView: view::StatusView,
        TokenView: admin::keyring::TokenView,
        TraceView: view::TraceView,
    }

    pub(super) fn all(generator: &mut SchemaGenerator) {
        read(generator);
    }
}

/// The shapes of what is sent.
pub(super) mod wishes {
    use schemars::SchemaGenerator;

    use crate::admin;

    shapes! {
        BanWish: admin::bans::Wish,
        FaultWish: admin::chaos::Wish,
        PartnerWish: admin::partners::Wish,
        PlannerWish: admin::planner::Wish,
        TokenWish: admin::tokens::Wish,
    }

    pub(super) fn all(generator: &mut SchemaGenerator) {
        read(generator);
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = serde_json::to_string_pretty(&document(super::described())).unwrap_or_default();
    text.push('\n');
    text
});

/// The document as it is served and checked in.
pub(crate) fn text() -> &'static str {
    &TEXT
}

/// This description, in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    responses((status = 200, description = "The document", content_type = "application/json", body = Object,
        example = json!({ "openapi": "3.1.0", "info": { "title": "muster" } }))),
)]
pub(super) async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text())
}

/// The whole document: what the handlers say, the shapes, and what is the same everywhere.
pub(super) fn document(described: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(described).unwrap_or_default();
    document["info"] = json!({
        "title": "muster",
        "description": ABOUT,
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    document["servers"] =
        json!([{ "url": "http://127.0.0.1:7300", "description": "where it listens when nothing else is set" }]);
    document["components"] = json!({
        "schemas": shapes(),
        "responses": problems(),
        "securitySchemes": { BEARER: {
            "type": "http",
            "scheme": "bearer",
            "description": "data/admin.token, which may do everything, or one that `muster token add` made, which may do what \
                its role may",
        } },
    });
    // What takes the rest of a path is written with a star in the router alone.
    let paths = std::mem::take(&mut document["paths"]);
    let paths = paths.as_object().into_iter().flatten();
    let paths: Map<String, Value> = paths.map(|(path, item)| (path.replace("{*", "{"), item.clone())).collect();
    document["paths"] = paths.into();
    for (path, methods) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete(path, method, operation);
        }
    }
    document
}

/// What a problem with this status is called.
fn named(status: u16) -> String {
    format!("Problem{status}")
}

fn problems() -> Map<String, Value> {
    let all = ANYWHERE.iter().chain(Some(&NAMED)).chain(&SENT);
    all.map(|(status, words)| (named(*status), Problem::described(*status, words))).collect()
}

fn shapes() -> Map<String, Value> {
    let settings =
        || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut answers = settings().for_serialize().into_generator();
    answers::all(&mut answers);
    let mut wishes = settings().for_deserialize().into_generator();
    wishes::all(&mut wishes);
    let mut shapes = answers.take_definitions(true);
    shapes.extend(wishes.take_definitions(true));
    shapes
}

/// Adds to one operation what its handler does not say, because it is not the handler that does it.
fn complete(path: &str, method: &str, operation: &mut Value) {
    let parts: Vec<&str> = path.trim_start_matches("/api/v1").split('/').filter(|part| !part.is_empty()).collect();
    let name =
        parts.iter().map(|part| part.trim_matches(['{', '}', '*']).replace('.', "_")).collect::<Vec<_>>().join("_");
    operation["operationId"] = format!("{method}_{name}").into();
    operation["tags"] = json!([parts.first()]);
    let is_api = path.starts_with("/api/");
    let role = super::roles::needed(method, path);
    operation["x-role"] = role.name().into();
    // Reading on loopback needs none.
    operation["security"] = if method == "get" { json!([{}, { BEARER: [] }]) } else { json!([{ BEARER: [] }]) };
    let (is_named, is_sent) = (path.contains('{'), operation.get("requestBody").is_some());
    let problems = ANYWHERE
        .iter()
        .filter(|(status, _)| is_api || *status < 500)
        .chain(Some(&NAMED).filter(|_| is_named))
        .chain(SENT.iter().filter(|_| is_sent));
    for (status, _) in problems {
        let told = &mut operation["responses"][status.to_string()];
        if told.is_null() {
            *told = json!({ "$ref": format!("#/components/responses/{}", named(*status)) });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Where the document is checked in.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

    /// The document, with each problem where it is referred to.
    fn whole() -> Value {
        let mut document: Value = serde_json::from_str(text()).unwrap();
        let problems = document["components"]["responses"].clone();
        for item in document["paths"].as_object_mut().unwrap().values_mut() {
            for operation in item.as_object_mut().unwrap().values_mut() {
                for answer in operation["responses"].as_object_mut().unwrap().values_mut() {
                    if let Some(name) = answer["$ref"].as_str() {
                        *answer = problems[name.rsplit('/').next().unwrap()].clone();
                    }
                }
            }
        }
        document
    }

    /// Every operation with its path and method.
    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let paths = document["paths"].as_object().unwrap();
        let of = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().clone();
            let path = path.clone();
            methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    #[test]
    fn the_document_is_the_one_that_is_checked_in() {
        if std::env::var_os("RENEW").is_some_and(|what| what == "openapi") {
            std::fs::write(FILE, text()).unwrap();
        }
        let held = std::fs::read_to_string(FILE).unwrap_or_default();
        assert!(
            held == text(),
            "docs/openapi.json has drifted; renew it: RENEW=openapi cargo test --workspace --bin muster openapi"
        );
    }

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_an_example_and_its_problems() {
        let document = whole();
        let operations = operations(&document);
        assert!(operations.len() >= 36, "{}", operations.len());
        let names: BTreeSet<&str> =
            operations.iter().map(|(.., operation)| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(names.len(), operations.len());
        for (path, method, operation) in &operations {
            let at = format!("{method} {path}");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{at}");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{at} {status}");
                if ["202", "204"].contains(&status.as_str()) {
                    continue;
                }
                let content = answer["content"].as_object().unwrap_or_else(|| panic!("{at} {status} has no content"));
                for (kind, content) in content {
                    assert!(!content["example"].is_null(), "{at} {status} has no example");
                    assert!(!content["schema"].is_null(), "{at} {status} has no schema");
                    let is_problem = status.starts_with('4') || (status.starts_with('5') && path != "/readyz");
                    assert_eq!(kind == "application/problem+json", is_problem, "{at} {status}: {kind}");
                }
            }
            for status in ["400", "401", "403"] {
                assert!(!operation["responses"][status].is_null(), "{at} does not tell of {status}");
            }
            let named = path.matches('{').count();
            let told =
                operation["parameters"].as_array().into_iter().flatten().filter(|each| each["in"] == "path").count();
            assert_eq!(named, told, "{at}: the parameters of its path");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(parameter["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}: {parameter}");
            }
            if let Some(body) = operation.get("requestBody") {
                assert!(!body["content"]["application/json"]["example"].is_null(), "{at}: an example of what is sent");
            }
        }
    }

    /// What is wrong with a value by its schema; enough of JSON Schema for what schemars writes of our types.
    fn faults(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        if let Some(name) = schema["$ref"].as_str() {
            let held = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{at}: no {name}"));
            return faults(document, held, value, at);
        }
        let mut found = Vec::new();
        for key in ["anyOf", "oneOf"] {
            if let Some(ways) = schema[key].as_array() {
                let tried: Vec<_> = ways.iter().map(|way| faults(document, way, value, at)).collect();
                if !tried.iter().any(Vec::is_empty) {
                    found.push(format!("{at}: none of {key} fits {value}: {tried:?}"));
                }
            }
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let is = |kind: &str| match kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_u64() || value.is_i64(),
            "number" => value.is_number(),
            _ => value.is_null(),
        };
        if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
            found.push(format!("{at}: {value} is not {kinds:?}"));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            found.push(format!("{at}: {value} is none of {}", schema["enum"]));
        }
        if schema.get("const").is_some_and(|word| word != value) {
            found.push(format!("{at}: {value} is not {}", schema["const"]));
        }
        if let Some(fields) = value.as_object() {
            for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(needed) {
                    found.push(format!("{at}: without {needed}"));
                }
            }
            if let Some(known) = schema["properties"].as_object() {
                for (name, field) in fields {
                    match known.get(name) {
                        Some(schema) => found.extend(faults(document, schema, field, &format!("{at}.{name}"))),
                        None if schema["oneOf"].is_null() && schema["additionalProperties"].is_null() => {
                            found.push(format!("{at}: {name} is not described"));
                        }
                        None => {}
                    }
                }
            }
        }
        for (index, item) in value.as_array().into_iter().flatten().enumerate() {
            found.extend(faults(document, &schema["items"], item, &format!("{at}[{index}]")));
        }
        found
    }

    #[test]
    fn every_example_has_the_shape_that_is_told_of_it() {
        let document = whole();
        let mut checked = BTreeMap::new();
        for (path, method, operation) in operations(&document) {
            let answers = operation["responses"].as_object().unwrap().values();
            for place in answers.chain(operation.get("requestBody")) {
                for (kind, content) in place["content"].as_object().into_iter().flatten() {
                    let at = format!("{method} {path}");
                    let found = match &content["example"] {
                        // Of a stream, what each of its events says.
                        Value::String(stream) if kind == "text/event-stream" => stream
                            .lines()
                            .filter_map(|line| line.strip_prefix("data: "))
                            .map(|data| serde_json::from_str(data).unwrap())
                            .flat_map(|data: Value| faults(&document, &content["schema"], &data, &at))
                            .collect(),
                        example => faults(&document, &content["schema"], example, &at),
                    };
                    assert!(found.is_empty(), "{found:#?}");
                    *checked.entry(kind.clone()).or_insert(0) += 1;
                }
            }
        }
        assert!(checked["application/json"] > 25, "{checked:?}");
    }

    #[test]
    fn every_shape_is_used_and_every_one_that_is_used_is_there() {
        let text = text();
        let document = whole();
        let shapes = document["components"]["schemas"].as_object().unwrap();
        for (name, shape) in shapes {
            assert!(text.contains(&format!("\"#/components/schemas/{name}\"")), "nobody refers to {name}");
            assert!(shape.as_object().is_some_and(|shape| shape.len() > 1), "{name} is empty");
        }
        for name in text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(shapes.contains_key(name), "{name}");
        }
    }
}
