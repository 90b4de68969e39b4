//! `muster resource put|get|ls|rm`: what we offer, and what partners told us of theirs.

use std::{
    fmt::Write as _,
    io::Read as _,
    path::{Path, PathBuf},
};

use actors::{
    handle::PAGE_MAX,
    view::{ListedView, PlacedView, ResourceView},
};
use clap::Subcommand;
use hyper::Method;
use jiff::Timestamp;
use protocol::catalogue::{Access, Kind, Resource};
use serde::Deserialize;

use super::{
    Context,
    client::escaped,
    exit::{Exit, Failure},
    output::{ago, clean, or_dash, table},
};
use crate::admin::RESOURCE_BODY_BYTES_MAX;

/// Rows in one list: 200 pages, which a terminal can still be asked to show.
const ROWS_MAX: i64 = 100_000;

/// What a newcomer can write into a file.
const EXAMPLE: &str = r#"A public resource goes to every partner, a private one to those that it names:
  {"id": "farm-1", "kind": "compute", "name": "Farm", "access": "public"}
  {"id": "farm-2", "kind": "compute", "name": "Farm", "access": "private",
   "instances": [{"partnerships": [{"peer": "12D3KooW…", "groups": ["*"]}]}]}"#;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Offer a resource, or change one; partners that may see it hear of it.
    #[command(after_help = EXAMPLE)]
    Put {
        /// A file with the resource as JSON; `-` reads the standard input.
        file: PathBuf,
        /// Its kind, where the file does not say: compute, storage, processing, data or workflow.
        #[arg(long, value_parser = kind)]
        kind: Option<Kind>,
        #[command(flatten)]
        by: By,
    },
    /// Show one resource.
    Get {
        /// Its id.
        id: String,
        /// Whose it is: a peer id [default: self].
        #[arg(long, value_name = "PEER", default_value = "self", hide_default_value = true)]
        of: String,
    },
    /// List resources: ours, and those that partners told us.
    Ls {
        /// Only those with this in a name, a description or an owner's name, the best first.
        #[arg(long, default_value = "", hide_default_value = true)]
        text: String,
        /// Only of this kind.
        #[arg(long, value_parser = kind)]
        kind: Option<Kind>,
        /// Only of this peer, or ours for `self`.
        #[arg(long, value_name = "PEER")]
        of: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=ROWS_MAX))]
        limit: u32,
    },
    /// Offer a resource no longer; partners that could see it hear of it.
    Rm {
        /// Its id.
        id: String,
        #[command(flatten)]
        by: By,
    },
}

/// In whose name a resource is changed.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "In whose name")]
pub(super) struct By {
    /// A user of ours; partners are told.
    #[arg(long)]
    user: Option<String>,

    /// A group of the user; may be given again.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
}

impl By {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        let user = self.user.iter().map(|user| ("user", user.clone()));
        user.chain(self.groups.iter().map(|group| ("group", group.clone()))).collect()
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::named(name).ok_or_else(|| "expected compute, storage, processing, data or workflow".to_owned())
}

/// Does it and says so.
pub(super) async fn run(verb: &Verb, context: &Context) -> Result<(), Failure> {
    match verb {
        Verb::Put { file, kind, by } => put(file, *kind, by, context).await,
        Verb::Get { id, of } => {
            let path = format!("/api/v1/resources/{}/{}", escaped(&context.peer_or_self(of)?), escaped(id));
            let view: ResourceView = context.client()?.get(&path).await.map_err(unknown)?;
            context.output.one(&view, |view| whole(view, Timestamp::now()))
        }
        Verb::Ls { text, kind, of, limit } => list(text, *kind, of.as_deref(), *limit, context).await,
        Verb::Rm { id, by } => {
            let path = with_query(&format!("/api/v1/resources/{}", escaped(id)), &by.pairs());
            let client = context.client_that_changes()?;
            let gone: PlacedView = client.change(Method::DELETE, &path, None).await.map_err(unknown)?;
            context.output.one(&gone, |gone| format!("{} is no longer offered", clean(&gone.id)))
        }
    }
}

fn unknown(failure: Failure) -> Failure {
    match failure.exit {
        Exit::NotFound => failure.next("`muster resource ls` lists what is held here"),
        _ => failure,
    }
}

async fn put(file: &Path, kind: Option<Kind>, by: &By, context: &Context) -> Result<(), Failure> {
    let text = read(file)?;
    let id = id_of(file, &text)?;
    let mut pairs = by.pairs();
    pairs.extend(kind.map(|kind| ("kind", kind.name().to_owned())));
    let path = with_query(&format!("/api/v1/resources/{}", escaped(&id)), &pairs);
    let placed: PlacedView = context.client_that_changes()?.change(Method::PUT, &path, Some(text.into())).await?;
    context.output.one(&placed, |placed| format!("{} is offered as version {}", clean(&placed.id), placed.version))
}

/// The file's text, as long as the daemon takes it.
fn read(file: &Path) -> Result<String, Failure> {
    let unreadable = |cause: &std::io::Error| {
        Failure::new(Exit::Usage, format!("cannot read {}", shown(file)))
            .why(cause.to_string())
            .next("name a file with a resource as JSON, or - for the standard input")
    };
    let bytes_max = RESOURCE_BODY_BYTES_MAX as u64;
    let mut text = String::new();
    match file.to_str() {
        Some("-") => std::io::stdin().lock().take(bytes_max + 1).read_to_string(&mut text),
        _ => std::fs::File::open(file).and_then(|open| open.take(bytes_max + 1).read_to_string(&mut text)),
    }
    .map_err(|cause| unreadable(&cause))?;
    if text.len() > RESOURCE_BODY_BYTES_MAX {
        return Err(no_resource(file, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// The id that the path of a question needs.
fn id_of(file: &Path, text: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Named {
        id: Option<String>,
    }
    let named: Named = serde_json::from_str(text).map_err(|cause| no_resource(file, cause.to_string()))?;
    named.id.filter(|id| !id.is_empty()).ok_or_else(|| no_resource(file, "it has no \"id\""))
}

fn no_resource(file: &Path, why: impl Into<String>) -> Failure {
    Failure::new(Exit::Usage, format!("{} holds no resource", shown(file)))
        .why(why)
        .next(r#"the least is {"id": "farm-1", "kind": "compute", "name": "Farm"}"#)
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "the standard input".to_owned() } else { file.display().to_string() }
}

fn with_query(path: &str, pairs: &[(&str, String)]) -> String {
    let query: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

async fn list(text: &str, kind: Option<Kind>, of: Option<&str>, limit: u32, context: &Context) -> Result<(), Failure> {
    let mut asked = Vec::new();
    asked.extend((!text.is_empty()).then(|| ("text", text.to_owned())));
    asked.extend(kind.map(|kind| ("kind", kind.name().to_owned())));
    if let Some(of) = of {
        asked.push(("creator", context.peer_or_self(of)?));
    }
    let client = context.client()?;
    let (rows, has_more) = pages(limit, async |limit, after| {
        let mut pairs = asked.clone();
        pairs.push(("limit", limit.to_string()));
        pairs.extend(after.map(|after| ("after", after)));
        client.get(&with_query("/api/v1/resources", &pairs)).await
    })
    .await?;
    context.output.list(&rows, |rows| overview(rows, has_more, Timestamp::now()))
}

/// Page after page, until there is no next one or `limit` rows are there; and whether there are more.
async fn pages(
    limit: u32,
    ask: impl AsyncFn(u32, Option<String>) -> Result<ListedView, Failure>,
) -> Result<(Vec<ResourceView>, bool), Failure> {
    let (mut rows, mut next) = (Vec::new(), None);
    loop {
        let left = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok((rows, true));
        }
        let page = ask(left.min(PAGE_MAX), next).await?;
        rows.extend(page.resources);
        if page.next.is_none() {
            return Ok((rows, false));
        }
        next = page.next;
    }
}

fn overview(rows: &[ResourceView], has_more: bool, now: Timestamp) -> String {
    if rows.is_empty() {
        return "no such resource is held here; `muster resource put FILE` offers one".to_owned();
    }
    let mut table = table(["id", "kind", "name", "access", "changed", "creator"]);
    for view in rows {
        // A later version may write what this one does not understand; what it is called is shown all the same.
        let resource = serde_json::from_str::<Resource>(view.resource.get()).ok();
        let field = |of: fn(&Resource) -> String| resource.as_ref().map_or_else(|| "–".to_owned(), of);
        table.add_row([
            clean(&view.id),
            field(|resource| resource.kind.to_string()),
            field(|resource| or_dash(&resource.name)),
            field(|resource| access(resource.access).to_owned()),
            ago(now, view.updated_at),
            view.creator.to_string(),
        ]);
    }
    let plural = if rows.len() == 1 { "" } else { "s" };
    let more = if has_more { "; there are more, --limit shows them" } else { "" };
    format!("{table}\n{} resource{plural}{more}", rows.len())
}

const fn access(access: Access) -> &'static str {
    match access {
        Access::Public => "public",
        Access::Private => "private",
    }
}

fn whole(view: &ResourceView, now: Timestamp) -> String {
    let mut text = format!("{}\n", clean(&view.id));
    let _ = writeln!(text, "  creator    {}", view.creator);
    let _ = writeln!(text, "  version    {}, {}", view.version, ago(now, view.updated_at));
    let _ = writeln!(text, "  resource   {}", clean(view.resource.get()));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::value::RawValue;

    use super::*;
    use crate::admin::testing::{peer, resource};

    fn view(id: &str) -> ResourceView {
        let text = format!(
            r#"{{"id":"{id}","kind":"compute","name":"fa\u001brm","creator":"{}","version":1,"updated_at":"2026-01-01T00:00:00Z"}}"#,
            peer()
        );
        ResourceView { resource: RawValue::from_string(text).unwrap(), ..resource(id) }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_list_shows_what_is_offered_by_whom_and_no_escape() {
        let text = overview(&[view("farm-1"), view("farm-2")], false, Timestamp::UNIX_EPOCH);
        assert!(text.contains("fa\u{fffd}rm") && text.contains("private") && text.ends_with("2 resources"), "{text}");
        assert!(text.contains(&peer().to_string()), "{text}");
    }

    #[test]
    fn a_list_that_was_cut_says_so_and_an_empty_one_says_what_next() {
        let text = overview(&[view("farm-1")], true, Timestamp::UNIX_EPOCH);
        assert!(text.ends_with("1 resource; there are more, --limit shows them"), "{text}");
        assert!(overview(&[], false, Timestamp::UNIX_EPOCH).contains("resource put"));
    }

    #[tokio::test]
    async fn pages_are_followed_up_to_the_limit_and_no_further() {
        let held = 2 * PAGE_MAX + 1;
        for (limit, asked, has_more) in [
            (1, vec![1], true),
            (PAGE_MAX, vec![PAGE_MAX], true),
            (PAGE_MAX + 1, vec![PAGE_MAX, 1], true),
            (held + 9, vec![PAGE_MAX, PAGE_MAX, 10], false),
        ] {
            let questions = std::cell::RefCell::new(Vec::new());
            let answer = async |limit: u32, after: Option<String>| {
                questions.borrow_mut().push(limit);
                let from = after.map_or(0, |after| after.parse().unwrap());
                let to = held.min(from + limit);
                let resources = (from..to).map(|n| resource(&n.to_string())).collect();
                Ok(ListedView { resources, next: (to < held).then(|| to.to_string()) })
            };
            let (rows, more) = pages(limit, answer).await.unwrap();
            assert_eq!((rows.len(), more), (limit.min(held) as usize, has_more), "{limit}");
            assert_eq!(questions.into_inner(), asked, "{limit}");
            assert!(rows.iter().enumerate().all(|(n, row)| row.id == n.to_string()), "{limit}");
        }
    }

    #[test]
    fn what_a_later_version_wrote_is_listed_by_its_id() {
        let odd = ResourceView { resource: RawValue::from_string("{}".to_owned()).unwrap(), ..resource("farm-9") };
        assert!(overview(&[odd], false, Timestamp::UNIX_EPOCH).contains("farm-9"));
    }

    #[test]
    fn who_did_it_goes_with_the_question() {
        let by = By { user: Some("jane doe".to_owned()), groups: vec!["a&b".to_owned(), "c".to_owned()] };
        assert_eq!(with_query("/x", &by.pairs()), "/x?user=jane%20doe&group=a%26b&group=c");
        assert_eq!(with_query("/x", &By::default().pairs()), "/x");
    }

    #[test]
    fn a_file_without_an_id_is_a_usage_error_that_shows_a_resource() {
        for wrong in ["", "[]", "{}", r#"{"id": ""}"#, r#"{"id": 7}"#, r#"{"id": null}"#] {
            let file = file(wrong);
            let failure = id_of(file.path(), &read(file.path()).unwrap()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{wrong}");
            assert!(failure.next.unwrap().contains("farm-1"), "{wrong}");
        }
        let good = file(r#"{"name": "Farm", "id": "farm-1"}"#);
        assert_eq!(id_of(good.path(), &read(good.path()).unwrap()).unwrap(), "farm-1");
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        assert_eq!(read(file(&" ".repeat(RESOURCE_BODY_BYTES_MAX)).path()).unwrap().len(), RESOURCE_BODY_BYTES_MAX);
        assert_eq!(read(file(&" ".repeat(RESOURCE_BODY_BYTES_MAX + 1)).path()).unwrap_err().exit, Exit::Usage);
        assert_eq!(read(Path::new("/none/there")).unwrap_err().exit, Exit::Usage);
    }
}
