//! `/`: the dashboard. Its page, style and modules are compiled in and read by a browser as they stand in
//! `src/dashboard`; they are the same for every member, and ask the other resources for what they show.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};

/// Nothing but our own files is run or shown, nobody but us is asked, and no text is ever read as markup.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'";

const PAGE: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const MODULE: &str = "text/javascript; charset=utf-8";

/// A file of the page.
pub(super) struct File {
    /// Where it is asked for.
    pub(super) path: &'static str,
    /// Its media type.
    pub(super) kind: &'static str,
    /// What is in it.
    pub(super) text: &'static str,
}

macro_rules! file {
    ($name:literal, $kind:expr) => {
        File { path: concat!("/dashboard/", $name), kind: $kind, text: include_str!(concat!("../dashboard/", $name)) }
    };
}

/// Where a browser begins.
static INDEX: File = File { path: "/", kind: PAGE, text: include_str!("../dashboard/index.html") };

/// What it asks for next.
static FILES: [File; 23] = [
    file!("style.css", STYLE),
    file!("lately.js", MODULE),
    file!("main.js", MODULE),
    file!("draw.js", MODULE),
    file!("order.js", MODULE),
    file!("plot.js", MODULE),
    file!("say.js", MODULE),
    file!("source.js", MODULE),
    file!("words.js", MODULE),
    file!("views/actors.js", MODULE),
    file!("views/alerts.js", MODULE),
    file!("views/bus.js", MODULE),
    file!("views/config.js", MODULE),
    file!("views/network.js", MODULE),
    file!("views/outbox.js", MODULE),
    file!("views/overview.js", MODULE),
    file!("views/partners.js", MODULE),
    file!("views/peers.js", MODULE),
    file!("views/planner.js", MODULE),
    file!("views/pool.js", MODULE),
    file!("views/resources.js", MODULE),
    file!("views/search.js", MODULE),
    file!("views/sessions.js", MODULE),
];

/// Every file of the page.
pub(super) fn files() -> impl Iterator<Item = &'static File> {
    std::iter::once(&INDEX).chain(&FILES)
}

/// The page and its files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    files().fold(Router::new(), |router, file| {
        router.route(file.path, get(move |headers: HeaderMap| async move { file.answer(&headers) }))
    })
}

impl File {
    /// The file, or that the browser has it already. Both with all headers: a browser takes over those of the latter.
    fn answer(&self, asked: &HeaderMap) -> Response {
        let mark = self.mark();
        let is_held = asked.get(header::IF_NONE_MATCH).and_then(|held| held.to_str().ok()).is_some_and(|held| {
            held.split(',').map(|held| held.trim().trim_start_matches("W/")).any(|held| held == mark || held == "*")
        });
        let mut response = if is_held { StatusCode::NOT_MODIFIED.into_response() } else { self.text.into_response() };
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, self.kind);
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::REFERRER_POLICY, "no-referrer");
        // Kept, and asked for again each time, so that a new binary shows its own page at once.
        set(header::CACHE_CONTROL, "no-cache");
        if let Ok(mark) = HeaderValue::from_str(&mark) {
            headers.insert(header::ETAG, mark);
        }
        response
    }

    /// Another text has another mark.
    fn mark(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        collections::{BTreeMap, BTreeSet},
        path::{Path, PathBuf},
    };

    use actors::view::{ActorState, BridgeState, BusMode, Ended, MemberState, Standing};
    use protocol::{
        alerts::{Severity, Topic},
        catalogue::Kind,
        relation::Relation,
        search::resources::Scope,
        trace::{How, Outcome},
    };
    use serde_json::{Value, json};
    use store::Fate;

    use super::*;

    /// As it travels, and so more than it would be compressed, of which 250 kB are allowed.
    const PAGE_BYTES_MAX: usize = 128 * 1024;

    /// The one address in it: the name of a kind of drawing, which is never asked for.
    const DRAWINGS: &str = "http://www.w3.org/2000/svg";

    fn named(path: &str) -> &'static File {
        files().find(|file| file.path == path).unwrap()
    }

    fn below(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
    }

    /// What stands between `before` and `after`, wherever it does.
    fn between<'a>(text: &'a str, before: &str, after: &str) -> Vec<&'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(found, _)| found).collect()
    }

    /// What `t("…")` asks for.
    fn calls(text: &str) -> impl Iterator<Item = &str> {
        let is_own = |at: usize| !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '.');
        text.match_indices("t(\"")
            .filter(move |(at, _)| is_own(*at))
            .filter_map(|(at, call)| text[at + call.len()..].split('"').next())
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_binary() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard");
        let served: BTreeSet<String> = FILES.iter().map(|file| file.path["/dashboard/".len()..].to_owned()).collect();
        let mut held: BTreeSet<String> = below(&folder)
            .into_iter()
            .map(|path| path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned())
            .collect();
        assert!(held.remove("index.html"));
        assert_eq!(served, held);
    }

    #[test]
    fn every_file_that_is_named_exists() {
        for file in files() {
            let folder = file.path.rsplit_once('/').unwrap().0;
            for module in between(file.text, " from \"", "\"") {
                let path = match module.strip_prefix("../") {
                    Some(above) => format!("{}/{above}", folder.rsplit_once('/').unwrap().0),
                    None => format!("{folder}/{}", module.strip_prefix("./").unwrap()),
                };
                assert!(files().any(|file| file.path == path), "{} asks for {path}", file.path);
            }
        }
        let named = ["href=\"/", "src=\"/"].into_iter().flat_map(|before| between(INDEX.text, before, "\""));
        let named: Vec<String> = named.map(|path| format!("/{path}")).collect();
        assert_eq!(named, ["/dashboard/style.css", "/dashboard/main.js"]);
        assert!(named.iter().all(|path| files().any(|file| file.path == path)));
    }

    #[test]
    fn nothing_leads_out_of_the_origin() {
        for file in files() {
            let text = file.text.replace(DRAWINGS, "");
            for way_out in ["://", "\"//", "'//", "url(", "@import", "import("] {
                assert!(!text.contains(way_out), "{} has {way_out}", file.path);
            }
        }
    }

    #[test]
    fn no_text_is_ever_read_as_markup_or_as_a_program() {
        for file in files() {
            for door in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"]
            {
                assert!(!file.text.contains(door), "{} has {door}", file.path);
            }
        }
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!INDEX.text.contains(inline), "{inline}");
        }
        assert_eq!(INDEX.text.matches("<script").count(), INDEX.text.matches("<script type=\"module\" src=").count());
    }

    #[test]
    fn the_whole_page_is_small() {
        let bytes: usize = files().map(|file| file.text.len()).sum();
        assert!(bytes <= PAGE_BYTES_MAX, "{bytes} bytes");
    }

    /// Key, English, French.
    fn words() -> BTreeMap<&'static str, [String; 2]> {
        let mut words = BTreeMap::new();
        let table =
            named("/dashboard/words.js").text.split_once("const WORDS = {").unwrap().1.split_once("\n};").unwrap().0;
        for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
            let (key, value) = line.split_once(": ").unwrap();
            let value: [String; 2] = serde_json::from_str(value.trim_end_matches(',')).unwrap();
            assert!(words.insert(key, value).is_none(), "{key} stands there twice");
        }
        words
    }

    #[test]
    fn every_word_is_said_in_both_languages_with_the_same_values() {
        let words = words();
        assert!(words.len() > 200, "{}", words.len());
        for (key, [english, french]) in &words {
            assert!(!english.trim().is_empty() && !french.trim().is_empty(), "{key}");
            let places = |text: &str| between(text, "{", "}").into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
            assert_eq!(places(english), places(french), "{key}");
        }
    }

    #[test]
    fn every_word_that_is_asked_for_is_there_and_no_other() {
        let words = words();
        let texts: Vec<&str> =
            files().filter(|file| file.path != "/dashboard/words.js").map(|file| file.text).collect();
        let mut asked = BTreeSet::new();
        for text in &texts {
            asked.extend(calls(text));
            for before in ["head: \"", "caption: \"", "empty: \"", "data-word=\""] {
                asked.extend(between(text, before, "\""));
            }
        }
        let missing: Vec<_> = asked.iter().filter(|key| !words.contains_key(**key)).collect();
        assert!(missing.is_empty() && asked.len() > 100, "{missing:?} of {}", asked.len());
        let groups: BTreeSet<&str> = texts.iter().flat_map(|text| between(text, "named(\"", "\"")).collect();
        for key in words.keys() {
            let is_said = texts.iter().any(|text| text.contains(&format!("\"{key}\"")));
            let is_view = key.ends_with("_lead") || named("/dashboard/main.js").text.contains(&format!(", {key}, "));
            let is_of_a_group = key.split_once('_').is_some_and(|(group, _)| groups.contains(group));
            assert!(is_said || is_view || is_of_a_group, "nobody says {key}");
        }
    }

    #[test]
    fn whatever_the_daemon_calls_a_state_has_words() {
        let words = words();
        let said = |group: &str, names: &[Value]| {
            for name in names {
                let key = format!("{group}_{}", name.as_str().unwrap());
                assert!(words.contains_key(key.as_str()), "{key}");
            }
        };
        use ActorState::{Running, Starting, Stopped, Stuck, Waiting};
        said("actor", &[json!(Starting), json!(Running), json!(Stuck), json!(Waiting), json!(Stopped)]);
        use Standing::{Isolated, Joined, Joining, Leaving, Whole};
        said("standing", &[json!(Joining), json!(Joined), json!(Whole), json!(Isolated), json!(Leaving)]);
        said(
            "pool",
            &[
                json!(MemberState::Joining),
                json!(MemberState::Answering),
                json!(MemberState::Suspect),
                json!(MemberState::Down),
                json!(MemberState::Standby),
            ],
        );
        said(
            "ended",
            &[
                json!(Ended::Complete),
                json!(Ended::Idle),
                json!(Ended::TimedOut),
                json!(Ended::Limit),
                json!(Ended::Replaced),
                json!(Ended::Closed),
                json!(Ended::Lost),
                json!(Ended::Isolated),
            ],
        );
        said("bus", &[json!(BridgeState::Away), json!(BridgeState::Entering), json!(BridgeState::Ready)]);
        said("topic", &Topic::ALL.map(|topic| json!(topic)));
        said("severity", &[json!(Severity::Warning), json!(Severity::Critical)]);
        said("mode", &[json!(BusMode::JetStream), json!(BusMode::Core)]);
        said("fate", &Fate::ALL.map(|fate| json!(fate.name())));
        said("kind", &Kind::ALL.map(|kind| json!(kind.name())));
        said("scope", &Scope::ALL.map(|scope| json!(scope.name())));
        said("how", &How::ALL.map(|how| json!(how)));
        said("outcome", &Outcome::ALL.map(|outcome| json!(outcome)));
        said("relation", &[Relation::Partner, Relation::Known, Relation::Blacklist].map(|relation| json!(relation)));
    }
}
