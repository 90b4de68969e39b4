//! What applications ask others by way of the bus: each question is a task, whose answers are said on the bus.

use std::{collections::HashMap, time::Duration};

use ::store::{Destination, Outgoing};
use protocol::{
    PeerId,
    bus::{Scope, VerbOut},
    catalogue::ResourceQuery,
    event::{Event, Verb, VerifyAnswer, VerifyQuestion},
    json,
    signed::Verified,
    wire::Answer,
};
use rand::rngs::StdRng;
use serde_json::json;
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::{
    Msg,
    plan::{Author, name},
};
use crate::{
    context::{Context, inform},
    fetch::FetchError,
    handle::{AskError, Handle},
    reach,
    supervision::{Address, Class},
    view,
};

/// Questions under way. One search per user and kind is open, so this is for 128 users at once.
const ASKS_MAX: usize = 256;

/// For a creator to say whether a signature is its own.
const VERIFY_WITHIN: Duration = Duration::from_secs(5);

/// What is asked, and in whose name.
#[derive(Clone, Debug)]
pub enum Question {
    /// Who is there?
    Peers {
        /// A peer id, a DID or part of a name.
        text: String,
        /// Who asks.
        author: Author,
    },
    /// What do others offer?
    Resources {
        /// Which others.
        scope: Scope,
        /// What is looked for.
        query: ResourceQuery,
        /// Who asks.
        author: Author,
    },
    /// The user's search is over.
    CloseSearch {
        /// That for resources; else that for peers.
        is_for_resources: bool,
        /// Whose.
        user: String,
    },
    /// Is this signature its creator's?
    Verify {
        /// Who would know.
        creator: PeerId,
        /// Of which resource.
        id: String,
        /// Of which version; nothing for the newest.
        version: Option<u64>,
        /// The signature.
        signature: String,
        /// Who asks.
        author: Author,
    },
}

/// The questions under way.
pub(super) struct Asks {
    context: Context,
    tasks: JoinSet<()>,
    /// By user and whether it is for resources. An ended one is replaced, or swept when there are many.
    searches: HashMap<(String, bool), AbortHandle>,
}

impl Asks {
    pub(super) fn new(context: Context) -> Self {
        Self { context, tasks: JoinSet::new(), searches: HashMap::new() }
    }

    /// Begins what the order `id` asks; an error is for now.
    pub(super) fn begin(
        &mut self,
        me: &Address<Msg>,
        id: String,
        question: Question,
        rng: &mut StdRng,
    ) -> Result<(), String> {
        while self.tasks.try_join_next().is_some() {}
        if !matches!(question, Question::CloseSearch { .. }) && self.tasks.len() >= ASKS_MAX {
            return Err(format!("{ASKS_MAX} questions are under way"));
        }
        let sayer = Sayer { me: me.clone(), correlation: id.clone(), prefix: name(rng), said: 0 };
        let context = self.context.clone();
        match question {
            Question::Peers { text, author } => {
                let key = (author.user.clone(), false);
                let task = self.tasks.spawn(peers(context, text, author, sayer));
                self.replace(key, task);
            }
            Question::Resources { scope, query, author } => {
                let key = (author.user.clone(), true);
                let task = self.tasks.spawn(resources(context, scope, query, author, sayer));
                self.replace(key, task);
            }
            Question::CloseSearch { is_for_resources, user } => {
                if let Some(task) = self.searches.remove(&(user, is_for_resources)) {
                    task.abort();
                }
            }
            Question::Verify { creator, id, version, signature, author } => {
                let question = VerifyQuestion { id, version, signature };
                self.tasks.spawn(verify(context, creator, question, author, sayer));
            }
        }
        Ok(())
    }

    /// A user has one search of each kind: the former one ends.
    fn replace(&mut self, key: (String, bool), task: AbortHandle) {
        self.searches.retain(|_, task| !task.is_finished());
        if let Some(former) = self.searches.insert(key, task) {
            former.abort();
        }
    }
}

/// The way back to the bus.
struct Sayer {
    me: Address<Msg>,
    /// The bus's name of the question, told with each answer.
    correlation: String,
    /// What the names of the answers begin with.
    prefix: String,
    said: u64,
}

impl Sayer {
    fn say(&mut self, verb: VerbOut, datatype: &str, author: &Author, payload: serde_json::Value) {
        self.said += 1;
        let mut payload = payload;
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("correlation_id".to_owned(), self.correlation.clone().into());
        }
        let outgoing = Outgoing {
            destination: Destination::Bus,
            subject: verb.name().to_owned(),
            user: author.user.clone(),
            groups: author.groups.clone(),
            datatype: datatype.to_owned(),
            payload: payload.to_string().into_bytes().into(),
            message_id: format!("{}-{}", self.prefix, self.said),
            may_drop: verb == VerbOut::SearchEvent,
        };
        inform(&self.me, Class::Search, Msg::Say(vec![outgoing]));
    }
}

async fn peers(context: Context, text: String, author: Author, mut sayer: Sayer) {
    let wanted = match (text.starts_with("did:"), text.parse::<PeerId>()) {
        (true, _) => view::Wanted { did: Some(text), ..view::Wanted::default() },
        (false, Ok(_)) => view::Wanted { peer_id: Some(text), ..view::Wanted::default() },
        (false, Err(_)) => view::Wanted { name: Some(text), ..view::Wanted::default() },
    };
    let mut steps = match Handle::new(context).search(&author.user, wanted).await {
        Ok(steps) => steps,
        Err(error) => return failed("peer", &author, &error, &mut sayer),
    };
    while let Some(step) = steps.recv().await {
        let step = serde_json::to_value(&step).unwrap_or_default();
        sayer.say(VerbOut::SearchEvent, "peer", &author, json!({ "step": step }));
    }
}

async fn resources(context: Context, scope: Scope, query: ResourceQuery, author: Author, mut sayer: Sayer) {
    let groups = author.groups.to_vec();
    let (handle, text, kind) = (Handle::new(context), query.text(), query.kind());
    let searched = handle.search_resources(&author.user, scope, text, kind, groups, false).await;
    let mut steps = match searched {
        Ok(steps) => steps,
        Err(error) => return failed("resource", &author, &error, &mut sayer),
    };
    while let Some(step) = steps.recv().await {
        let step = serde_json::to_value(&step).unwrap_or_default();
        sayer.say(VerbOut::SearchEvent, "resource", &author, json!({ "step": step }));
    }
}

fn failed(datatype: &str, author: &Author, error: &AskError, sayer: &mut Sayer) {
    sayer.say(VerbOut::SearchEvent, datatype, author, json!({ "error": error.to_string() }));
}

async fn verify(context: Context, creator: PeerId, question: VerifyQuestion, author: Author, mut sayer: Sayer) {
    let mut said = json!({ "creator": creator.to_string(), "id": question.id, "signature": question.signature });
    match ask_creator(&context, creator, &question, &author).await {
        Ok(VerifyAnswer { is_ours, version }) => {
            said["is_ours"] = is_ours.into();
            said["version"] = version.into();
        }
        Err(error) => {
            debug!(%creator, %error, "a signature could not be asked about");
            said["error"] = error.to_string().into();
        }
    }
    sayer.say(VerbOut::VerifyResource, "resource", &author, said);
}

async fn ask_creator(
    context: &Context,
    creator: PeerId,
    question: &VerifyQuestion,
    author: &Author,
) -> Result<VerifyAnswer, FetchError> {
    let protocol = Verb::Verify.protocol();
    let event = Event {
        verb: Verb::Verify,
        from: context.own.peer_id,
        user: String::new(),
        groups: author.groups.to_vec(),
        datatype: "resource".to_owned(),
        id: String::new(),
        ts: context.now().wall,
        payload: serde_json::to_vec(question).unwrap_or_default(),
    };
    let signed = Verified::sign(&event, &context.keys).to_raw();
    let mut io = reach::open(context, creator, protocol, VERIFY_WITHIN).await?;
    let max = protocol.value_bytes_max();
    let asked = io.ask(&signed, VERIFY_WITHIN, |value| json::parse::<Answer<VerifyAnswer>>(value.bytes, max)).await??;
    io.close().await;
    match asked {
        Answer::Given(answer) => Ok(answer),
        Answer::Refused(refused) => Err(FetchError::Refused(refused)),
    }
}
