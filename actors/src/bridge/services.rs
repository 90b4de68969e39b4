//! What applications may ask over the bus: the NATS services API, with the answers of the admin endpoint.
//!
//! The service is called `muster`; its endpoints stand under `<prefix>.svc`. A question is a JSON object, an answer JSON,
//! an error a code after HTTP's and words. Each question runs in a task, at most [`REQUESTS_MAX`] at once; those behind
//! wait in their subscriptions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    Client,
    service::{Request, Service, ServiceExt as _, endpoint::Endpoint, error::Error as Refusal},
};
use futures::{FutureExt as _, StreamExt as _, future::select_all};
use protocol::{
    bus::{self, VerbIn},
    json,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::{
    context::Context,
    handle::{AskError, Handle},
    sharing::{self, Ordered, Verdict},
    supervision::Class,
    view::{RecordView, SearchView, Wanted},
};

/// Questions that are answered at once. A search is what takes longest.
pub(super) const REQUESTS_MAX: usize = 16;

/// Bytes of a question, other than a resource: a name and its frame.
const QUESTION_BYTES_MAX: usize = 4 * 1024;

/// A search that is asked as one question has one answer: what was found until then.
const SEARCH_WITHIN: Duration = Duration::from_secs(4);

/// How long `sharing` may take for an order.
const ORDER_WITHIN: Duration = Duration::from_secs(4);

/// Pause before services are announced again that could not be.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    PeersList,
    PeersGet,
    Search,
    RecordGet,
    NodeInfo,
    ResourcesPut,
}

impl Question {
    const ALL: [Self; 6] =
        [Self::PeersList, Self::PeersGet, Self::Search, Self::RecordGet, Self::NodeInfo, Self::ResourcesPut];

    const fn subject(self) -> &'static str {
        match self {
            Self::PeersList => "peers.list",
            Self::PeersGet => "peers.get",
            Self::Search => "search",
            Self::RecordGet => "record.get",
            Self::NodeInfo => "node.info",
            Self::ResourcesPut => "resources.put",
        }
    }
}

/// Which peer or record.
#[derive(Debug, Deserialize)]
struct Key {
    #[serde(alias = "peer_id", alias = "did", alias = "name")]
    key: String,
}

/// Who searches what.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sought {
    user: String,
    peer_id: Option<String>,
    did: Option<String>,
    name: Option<String>,
}

/// What a search found in its time.
#[derive(Debug, Serialize)]
struct Found {
    hits: Vec<RecordView>,
    /// It came to its end.
    complete: bool,
}

/// What became of an order.
#[derive(Debug, Serialize)]
struct Accepted {
    repeated: bool,
}

/// Answers until the handle is dropped. Subscriptions are renewed by the client when the bus comes back.
pub(super) fn start(context: &Context, client: &Client, life: u64) -> AbortOnDropHandle<()> {
    let (context, client) = (context.clone(), client.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        // Counts the times, so that no order of one is taken for that of another.
        for again in 0_u64.. {
            if let Err(error) = serve(&context, &client, format!("{life}:{again}")).await {
                warn!(%error, "the services of the bus could not be announced");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }))
}

async fn serve(context: &Context, client: &Client, life: String) -> Result<(), async_nats::Error> {
    let builder = client.service_builder();
    let builder = builder.description("A member of the federation: its peers, their records and the catalogue.");
    let service = builder.start("muster", env!("CARGO_PKG_VERSION")).await?;
    let group = service.group(context.settings.bus.service_prefix());
    let _announced = Announced(Some(service));
    let own = &context.own;
    let desk = Arc::new(Desk {
        context: context.clone(),
        client: client.clone(),
        room: Arc::new(Semaphore::new(REQUESTS_MAX)),
        life: format!("svc:{}:{life}", own.born_at.as_millisecond()),
        orders: AtomicU64::new(0),
    });
    let mut endpoints = Vec::new();
    for question in Question::ALL {
        let endpoint = group.endpoint_builder().name(question.subject().replace('.', "-"));
        endpoints.push((question, endpoint.add(question.subject()).await?));
    }
    let each = endpoints.into_iter().map(|(question, endpoint)| Box::pin(listen(desk.clone(), question, endpoint)));
    select_all(each).await;
    Ok(())
}

/// A service that ends when it is dropped. Left alone, the task in which it answers about itself would go on, and hold
/// the connection of a bridge that is no more.
struct Announced(Option<Service>);

impl Drop for Announced {
    fn drop(&mut self) {
        // It waits for nothing.
        drop(self.0.take().map(|service| service.stop().now_or_never()));
    }
}

/// What each question is answered with.
struct Desk {
    context: Context,
    client: Client,
    room: Arc<Semaphore>,
    /// Begins the name of each order; no other life has the same.
    life: String,
    orders: AtomicU64,
}

async fn listen(desk: Arc<Desk>, question: Question, mut endpoint: Endpoint) {
    // Its tasks end with it.
    let mut tasks = JoinSet::new();
    while let Some(request) = endpoint.next().await {
        while tasks.try_join_next().is_some() {}
        // At the bound this one waits here, and those behind it in the subscription.
        let Ok(permit) = desk.room.clone().acquire_owned().await else { return };
        let desk = desk.clone();
        tasks.spawn(async move {
            desk.answer(question, request).await;
            drop(permit);
        });
    }
}

impl Desk {
    async fn answer(&self, question: Question, request: Request) {
        let payload = &request.message.payload;
        let handle = Handle::new(self.context.clone());
        let answer = match question {
            Question::PeersList => written(handle.peers().await.map_err(refused)),
            Question::PeersGet => peer(&handle, payload).await,
            Question::Search => search(&handle, payload).await,
            Question::RecordGet => record(&handle, payload).await,
            Question::NodeInfo => written(handle.status().await.map_err(refused)),
            Question::ResourcesPut => self.put(payload).await,
        };
        let most = self.client.max_payload();
        let answer = match answer {
            Ok(bytes) if bytes.len() > most => {
                Err(refusal(413, format!("the answer has {} bytes, and the server takes {most}", bytes.len())))
            }
            answer => answer,
        };
        self.context.stats.bus_requests_served.inc();
        // Whoever asked may be gone.
        drop(request.respond(answer.map(Into::into)).await);
    }

    /// The envelope of `create_resource`, and an answer to it.
    async fn put(&self, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
        let order = bus::read(VerbIn::CreateResource, payload).map_err(|error| refusal(400, error.to_string()))?;
        // A question has no second delivery, so any new name will do; names are known for a day, over restarts too.
        let born = self.context.own.born_at.as_millisecond();
        let id = format!("svc:{born}:{}:{}", self.life, self.orders.fetch_add(1, Relaxed));
        let ask = |reply| sharing::Msg::Ordered { orders: vec![Ordered { id, order }], reply };
        let verdicts = self.context.addresses.sharing.ask(Class::Control, ask, ORDER_WITHIN).await.map_err(refused)?;
        match verdicts.into_iter().next() {
            Some(Verdict::Done) => written(Ok(Accepted { repeated: false })),
            Some(Verdict::Repeated) => written(Ok(Accepted { repeated: true })),
            Some(Verdict::Refused(why)) => Err(refusal(400, &why)),
            Some(Verdict::NotYet(why)) => Err(refusal(503, &why)),
            None => Err(refusal(500, "there was no verdict")),
        }
    }
}

async fn peer(handle: &Handle, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let Key { key } = read(payload)?;
    let peers = handle.peers().await.map_err(refused)?;
    let found = peers.into_iter().find(|peer| peer.peer_id.to_string() == key);
    written(found.ok_or_else(|| refusal(404, format!("no such peer: {}", shown(&key)))))
}

async fn record(handle: &Handle, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let Key { key } = read(payload)?;
    written(handle.record(&key).await.map_err(refused))
}

async fn search(handle: &Handle, payload: &[u8]) -> Result<Vec<u8>, Refusal> {
    let Sought { user, peer_id, did, name } = read(payload)?;
    let wanted = Wanted { peer_id, did, name, trace: false };
    let mut steps = handle.search(&user, wanted).await.map_err(refused)?;
    let mut found = Found { hits: Vec::new(), complete: false };
    let until = tokio::time::Instant::now() + SEARCH_WITHIN;
    // Hits are bounded by the search itself.
    while let Ok(Some(step)) = tokio::time::timeout_at(until, steps.recv()).await {
        match step {
            SearchView::Hit { hit, .. } => found.hits.push(hit),
            SearchView::Trace { .. } => {}
            SearchView::End { .. } => {
                found.complete = true;
                break;
            }
        }
    }
    written(Ok(found))
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    // No words: those that ask for nothing in particular.
    let payload = if payload.is_empty() { b"{}" } else { payload };
    json::parse(payload, QUESTION_BYTES_MAX).map_err(|error| refusal(400, error.to_string()))
}

fn written<T: Serialize>(answer: Result<T, Refusal>) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(&answer?).map_err(|error| refusal(500, error.to_string()))
}

/// The codes of HTTP, which is what others of this API use.
fn refused(error: AskError) -> Refusal {
    let code = match &error {
        AskError::Busy { .. } | AskError::NotYet(_) => 429,
        AskError::Away { .. } => 503,
        AskError::Late { .. } => 504,
        AskError::Invalid(_) => 400,
        AskError::Unknown { .. } => 404,
    };
    refusal(code, error.to_string())
}

/// The words go into a header, which is one line.
fn refusal(code: usize, words: impl AsRef<str>) -> Refusal {
    let status = words.as_ref().chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    Refusal { status, code }
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
