//! An order, read from its verb and its envelope.

use super::{
    ENVELOPE_BYTES_MAX, Order, OrderError, PEERS_MAX, Scope, VerbIn, What,
    fields::{Fields, NameOrNumber, invalid, one_line},
};
use crate::{
    catalogue::{GROUPS_MAX, Kind, ResourceQuery, check_id},
    event::Verb,
    json::JsonError,
    relation::Relation,
};

/// Where a payload names the one peer that it is for.
const DESTINATION: [&str; 3] = ["peer_id", "dest_peer_id", "destination"];

/// Where a payload or its envelope says what is searched.
const SEARCHED: [&str; 4] = ["search", "text", "query", "name"];

/// What may stand in `action`.
const ACTIONS: &str = "create, update, delete, considers, planner, close_planner, search, close_search, verify, admiralty_config or \
     minio_config";

/// What may stand in `datatype`.
const DATATYPES: &str = "a name such as peer, resource, compute, storage, processing, data or workflow";

/// Reads what an application published under `verb`. Its `method` is not looked at: the subject said it.
///
/// # Errors
/// When the envelope or its payload is no JSON object within the limits, or a field is missing or not what it should be.
pub fn read(verb: VerbIn, bytes: &[u8]) -> Result<Order, OrderError> {
    let envelope = Fields::read(&text_of(bytes)?)?;
    let payload = envelope.payload()?;
    let groups = "at most 64 texts of at most 256 bytes without control characters";
    let order = |what| -> Result<Order, OrderError> {
        Ok(Order {
            app: envelope.text("from_app")?.unwrap_or_default(),
            user: envelope.text("user")?.unwrap_or_default(),
            groups: envelope.texts("groups", GROUPS_MAX, groups)?,
            what,
        })
    };
    let order = match verb {
        VerbIn::CreateResource => order(put(&datatype(&envelope)?, payload, false)?)?,
        VerbIn::RemoveResource => order(remove(&datatype(&envelope)?, &payload, false)?)?,
        VerbIn::PropagationEvent => order(propagated(&envelope, &payload)?)?,
    };
    if is_search(&order.what) && order.user.is_empty() {
        return Err(OrderError::Missing { field: "user", expected: "the user whose search it is" });
    }
    Ok(order)
}

fn text_of(bytes: &[u8]) -> Result<String, OrderError> {
    // Before it is copied: what is too long costs nothing.
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(OrderError::Malformed(JsonError::TooLong { got: bytes.len(), max: ENVELOPE_BYTES_MAX }));
    }
    let text = str::from_utf8(bytes).map_err(|error| JsonError::NotUtf8 { at: error.valid_up_to() });
    text.map(one_line).map_err(OrderError::Malformed)
}

/// The fields of a payload; its faults are told as the payload's.
fn fields_of(payload: &str) -> Result<Fields, OrderError> {
    Fields::read(payload).map_err(|error| match error {
        OrderError::Malformed(cause) => OrderError::Payload(cause),
        error => error,
    })
}

/// What an order is about.
enum Datatype {
    Peer,
    /// Of some kind, or of the kind that its text says.
    Resource(Option<Kind>),
    /// Something that only the applications know.
    Other(String),
}

fn datatype(fields: &Fields) -> Result<Datatype, OrderError> {
    match fields.name_or_number("datatype", DATATYPES)? {
        None => Ok(Datatype::Resource(None)),
        // The order of the predecessor's enumeration is not part of the contract, and a guess would misfile.
        Some(NameOrNumber::Number(number)) => {
            Err(invalid("datatype", &number.to_string(), "a name such as compute, not a number of an enumeration"))
        }
        Some(NameOrNumber::Name(name)) => {
            let name = name.trim().to_lowercase();
            Ok(match name.as_str() {
                "peer" => Datatype::Peer,
                "" | "resource" => Datatype::Resource(None),
                _ => Kind::named(&name).map_or(Datatype::Other(name), |kind| Datatype::Resource(Some(kind))),
            })
        }
    }
}

fn put(datatype: &Datatype, payload: String, spread: bool) -> Result<What, OrderError> {
    match datatype {
        Datatype::Peer => {
            let fields = fields_of(&payload)?;
            let peer = fields.peer(&["peer_id", "id"])?;
            let name = fields.text("name")?.unwrap_or_default();
            let relation = relation(&fields)?;
            Ok(What::PutPeer { peer: peer.ok_or(no_peer("peer_id"))?, relation, name, text: payload })
        }
        Datatype::Resource(kind) => Ok(What::Put { kind: *kind, text: payload, spread }),
        Datatype::Other(name) => Err(invalid("datatype", name, DATATYPES)),
    }
}

fn remove(datatype: &Datatype, payload: &str, spread: bool) -> Result<What, OrderError> {
    let fields = fields_of(payload)?;
    match datatype {
        Datatype::Peer => {
            let peer = fields.peer(&["peer_id", "id"])?;
            Ok(What::RemovePeer { peer: peer.ok_or(no_peer("peer_id"))? })
        }
        Datatype::Resource(kind) => {
            Ok(What::Remove { kind: *kind, id: id(&fields)?, version: fields.version()?, spread })
        }
        Datatype::Other(name) => Err(invalid("datatype", name, DATATYPES)),
    }
}

/// What a peer becomes: a relation's name. The predecessor's 0 is a relation that nobody set, and leaves it as it is.
fn relation(fields: &Fields) -> Result<Option<Relation>, OrderError> {
    const EXPECTED: &str = "self, partner, known, none or blacklist, or the number 0 to leave it";
    match fields.name_or_number("relation", EXPECTED)? {
        None => Ok(None),
        Some(NameOrNumber::Number(0)) => Ok(None),
        Some(NameOrNumber::Number(number)) => Err(invalid("relation", &number.to_string(), EXPECTED)),
        Some(NameOrNumber::Name(name)) if name.is_empty() => Ok(None),
        Some(NameOrNumber::Name(name)) => {
            let relation = Relation::named(&name.trim().to_lowercase());
            relation.map(Some).ok_or_else(|| invalid("relation", &name, EXPECTED))
        }
    }
}

fn id(fields: &Fields) -> Result<String, OrderError> {
    let id = fields.text("id")?.ok_or(OrderError::Missing { field: "id", expected: "the id of a resource" })?;
    check_id(&id)?;
    Ok(id)
}

/// What the payload of a propagation event says: `{datatype, action, payload}`, the inner payload being the word itself.
fn propagated(envelope: &Fields, payload: &str) -> Result<What, OrderError> {
    let outer = fields_of(payload)?;
    // Some applications say the datatype in the envelope only.
    let datatype = match datatype(&outer)? {
        Datatype::Resource(None) => datatype(envelope)?,
        datatype => datatype,
    };
    let inner = outer.payload()?;
    let Some(NameOrNumber::Name(action)) = outer.name_or_number("action", ACTIONS)? else {
        return Err(OrderError::Missing { field: "action", expected: ACTIONS });
    };
    match action.trim().to_lowercase().as_str() {
        "create" => changed(Verb::Create, &datatype, inner),
        "update" => changed(Verb::Update, &datatype, inner),
        "delete" => changed(Verb::Delete, &datatype, inner),
        "considers" => considers(&datatype, inner),
        "planner" => Ok(What::Planner { to: fields_of(&inner)?.peer(&DESTINATION)?, payload: inner.into_bytes() }),
        "close_planner" => Ok(What::ClosePlanner { to: fields_of(&inner)?.peer(&DESTINATION)? }),
        "search" => search(envelope, &datatype, &fields_of(&inner)?),
        "close_search" => Ok(What::CloseSearch { resources: !matches!(datatype, Datatype::Peer) }),
        "verify" => verify(&fields_of(&inner)?),
        "admiralty_config" => hand(Verb::Admiralty, datatype.name(), inner),
        "minio_config" => hand(Verb::Minio, datatype.name(), inner),
        _ => Err(invalid("action", &action, ACTIONS)),
    }
}

fn changed(verb: Verb, datatype: &Datatype, inner: String) -> Result<What, OrderError> {
    match (datatype, verb) {
        (Datatype::Resource(_), Verb::Delete) => remove(datatype, &inner, true),
        (Datatype::Resource(_), _) => put(datatype, inner, true),
        (Datatype::Peer | Datatype::Other(_), _) => hand(verb, datatype.name(), inner),
    }
}

fn hand(verb: Verb, datatype: String, inner: String) -> Result<What, OrderError> {
    let to = fields_of(&inner)?.peer(&DESTINATION)?.ok_or(no_peer("peer_id"))?;
    Ok(What::Hand { verb, datatype, to, payload: inner.into_bytes() })
}

/// To the peers named, or back to the one that asked.
fn considers(datatype: &Datatype, inner: String) -> Result<What, OrderError> {
    const EXPECTED: &str = "at most 64 peer ids";
    let fields = fields_of(&inner)?;
    let mut to = Vec::new();
    for named in fields.texts("peer_ids", PEERS_MAX, EXPECTED)? {
        let peer = named.parse().map_err(|_| invalid("peer_ids", &named, EXPECTED))?;
        if !to.contains(&peer) {
            to.push(peer);
        }
    }
    if to.is_empty() {
        to.push(fields.peer(&["origin_id"])?.ok_or(no_peer("peer_ids"))?);
    }
    Ok(What::Considers { datatype: datatype.name(), to, payload: inner.into_bytes() })
}

fn search(envelope: &Fields, datatype: &Datatype, fields: &Fields) -> Result<What, OrderError> {
    let text = match fields.first_text(&SEARCHED)? {
        Some(text) => Some(text),
        None => envelope.first_text(&["search_attr"])?,
    };
    match datatype {
        Datatype::Peer => {
            let text = text.ok_or(OrderError::Missing { field: "search", expected: "a peer id, a DID or a name" })?;
            Ok(What::SearchPeers { text })
        }
        Datatype::Resource(kind) => {
            let query = ResourceQuery::new(&text.unwrap_or_default(), *kind)?;
            Ok(What::SearchResources { scope: scope(fields)?, query })
        }
        Datatype::Other(name) => Err(invalid("datatype", name, DATATYPES)),
    }
}

fn scope(fields: &Fields) -> Result<Scope, OrderError> {
    let Some(name) = fields.first_text(&["type"])? else { return Ok(Scope::default()) };
    Scope::named(&name.trim().to_lowercase()).ok_or_else(|| invalid("type", &name, "all, known or partner"))
}

fn verify(fields: &Fields) -> Result<What, OrderError> {
    const EXPECTED: &str = "a signature";
    let creator = fields.peer(&["creator", "creator_id", "peer_id"])?.ok_or(no_peer("creator"))?;
    let signature = fields.first_text(&["signature"])?;
    let signature = signature.ok_or(OrderError::Missing { field: "signature", expected: EXPECTED })?;
    Ok(What::Verify { creator, id: id(fields)?, version: fields.version()?, signature })
}

const fn no_peer(field: &'static str) -> OrderError {
    OrderError::Missing { field, expected: "the peer id of whom it is about" }
}

/// Only searches belong to a user, and are ended by the next one of the same user.
const fn is_search(what: &What) -> bool {
    matches!(what, What::SearchPeers { .. } | What::SearchResources { .. } | What::CloseSearch { .. })
}

impl Datatype {
    /// Its name between members.
    fn name(&self) -> String {
        match self {
            Self::Peer => "peer".to_owned(),
            Self::Resource(None) => "resource".to_owned(),
            Self::Resource(Some(kind)) => kind.name().to_owned(),
            Self::Other(name) => name.clone(),
        }
    }
}
