//! Which events of which peers are taken, before any of them has an effect.

use jiff::Timestamp;
use libp2p_identity::PeerId;

use super::{Event, Verb};
use crate::{
    catalogue::{Kind, Removal, Resource},
    json,
    relation::Relation,
    signed::{SignedError, Verified},
    wire::{RefusalCode, Refused},
};

/// What an event asks of our catalogue.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The author has this resource now.
    Put(Box<Verified<Resource>>),
    /// The author has this resource no longer.
    Remove(Removal),
    /// Nothing: it is for our applications alone.
    Other,
}

/// Whether events for `verb` are taken at all from a peer that is this to us: known before any of them is read.
///
/// # Errors
/// The refusal in the words of the wire.
pub fn welcome(verb: Verb, relation: Relation) -> Result<(), Refused> {
    let is_welcome = match verb {
        Verb::Create | Verb::Update | Verb::Delete => relation == Relation::Partner,
        Verb::Considers | Verb::Planner | Verb::Admiralty | Verb::Minio => relation.is_known(),
        // What it may see is decided resource by resource.
        Verb::Search | Verb::Verify => true,
    };
    if relation == Relation::Blacklist {
        return Err(Refused::new(RefusalCode::Banned, "blacklisted"));
    }
    if !is_welcome {
        let detail = format!("{} is taken from partners, and you are none here yet", verb.name());
        return Err(Refused::new(RefusalCode::UnknownPeer, detail));
    }
    Ok(())
}

/// Whether an event on a stream for `verb`, on the connection of `peer`, is taken from a peer that is this to us.
///
/// # Errors
/// The refusal in the words of the wire.
pub fn judge(event: &Event, verb: Verb, peer: &PeerId, relation: Relation) -> Result<(), Refused> {
    if event.from != *peer {
        let detail = format!("the event is from {}, and the connection is not", event.from);
        return Err(Refused::new(RefusalCode::NotYours, detail));
    }
    if event.verb != verb {
        let detail = format!("got an event of type {} on the protocol for {}", event.verb.name(), verb.name());
        return Err(Refused::new(RefusalCode::Invalid, detail));
    }
    welcome(verb, relation)?;
    let has_effect = !matches!(verb, Verb::Search | Verb::Verify);
    if has_effect && event.id.is_empty() {
        return Err(Refused::new(RefusalCode::Invalid, "got no \"id\", expected one that is the same at each sending"));
    }
    Ok(())
}

/// What a judged event asks of our catalogue. Only its author's own resources are its to change.
///
/// # Errors
/// The refusal in the words of the wire: a text that is no signed resource, or another's.
pub fn told(event: &Event, now: Timestamp) -> Result<Told, Refused> {
    if !is_resource(&event.datatype) {
        return Ok(Told::Other);
    }
    match event.verb {
        Verb::Create | Verb::Update => {
            let text = std::str::from_utf8(&event.payload);
            let text = text.map_err(|_| Refused::new(RefusalCode::Invalid, "got a payload that is not UTF-8"))?;
            let resource = Verified::<Resource>::open(text, now).map_err(|error| refused(&error))?;
            check_owner(&resource.creator, &event.from)?;
            Ok(Told::Put(Box::new(resource)))
        }
        Verb::Delete => {
            let removal: Removal = json::parse(&event.payload, 1_024).map_err(|error| refused(&error.into()))?;
            removal.check().map_err(|error| refused(&error))?;
            Ok(Told::Remove(removal))
        }
        _ => Ok(Told::Other),
    }
}

/// Whether applications would take it for a resource, however it is spelt.
fn is_resource(datatype: &str) -> bool {
    let datatype = datatype.trim().to_lowercase();
    datatype.is_empty() || datatype == "resource" || Kind::named(&datatype).is_some()
}

fn check_owner(creator: &PeerId, from: &PeerId) -> Result<(), Refused> {
    if creator == from {
        return Ok(());
    }
    let detail = format!("got a resource of {creator}, expected one of yours");
    Err(Refused::new(RefusalCode::NotYours, detail))
}

fn refused(error: &SignedError) -> Refused {
    Refused::new(error.refusal(), error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{catalogue::Draft, identity::Keys};

    fn keys(n: u8) -> Keys {
        Keys::from_seed([n; 32])
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn event(verb: Verb, payload: &[u8]) -> Event {
        Event {
            verb,
            from: keys(1).peer_id(),
            user: String::new(),
            groups: vec![],
            datatype: "data".to_owned(),
            id: "7".to_owned(),
            ts: now(),
            payload: payload.to_vec(),
        }
    }

    fn code(judged: Result<(), Refused>) -> Option<RefusalCode> {
        judged.err().map(|refused| refused.refused)
    }

    #[test]
    fn g32_an_event_is_bound_to_its_connection_and_its_protocol() {
        let own = keys(1).peer_id();
        let created = event(Verb::Create, b"");
        assert_eq!(code(judge(&created, Verb::Create, &own, Relation::Partner)), None);
        let other = keys(2).peer_id();
        assert_eq!(code(judge(&created, Verb::Create, &other, Relation::Partner)), Some(RefusalCode::NotYours));
        assert_eq!(code(judge(&created, Verb::Delete, &own, Relation::Partner)), Some(RefusalCode::Invalid));
        let nameless = Event { id: String::new(), ..created };
        assert_eq!(code(judge(&nameless, Verb::Create, &own, Relation::Partner)), Some(RefusalCode::Invalid));
        let search = Event { id: String::new(), ..event(Verb::Search, b"") };
        assert_eq!(code(judge(&search, Verb::Search, &own, Relation::None)), None);
    }

    #[test]
    fn what_is_taken_depends_on_what_the_peer_is_to_us() {
        use RefusalCode::{Banned, UnknownPeer};
        let taken = |verb, relation| code(judge(&event(verb, b""), verb, &keys(1).peer_id(), relation));
        for verb in Verb::ALL {
            assert_eq!(taken(verb, Relation::Blacklist), Some(Banned), "{verb:?}");
            assert_eq!(taken(verb, Relation::Partner), None, "{verb:?}");
        }
        for verb in [Verb::Create, Verb::Update, Verb::Delete] {
            assert_eq!(taken(verb, Relation::Known), Some(UnknownPeer), "{verb:?}");
        }
        for verb in [Verb::Considers, Verb::Planner, Verb::Admiralty, Verb::Minio] {
            assert_eq!(
                (taken(verb, Relation::Known), taken(verb, Relation::None)),
                (None, Some(UnknownPeer)),
                "{verb:?}"
            );
        }
        for verb in [Verb::Search, Verb::Verify] {
            assert_eq!(taken(verb, Relation::None), None, "{verb:?}");
        }
    }

    #[test]
    fn only_its_creator_changes_a_resource() {
        let draft = Draft::read(r#"{"id":"a","kind":"data","name":"x"}"#, None).unwrap();
        let of = |n: u8| draft.clone().sign(&keys(n), 1, now()).unwrap();
        let put = told(&event(Verb::Update, of(1).text().as_bytes()), now()).unwrap();
        assert_eq!(put, Told::Put(Box::new(of(1))));
        let refused = told(&event(Verb::Update, of(2).text().as_bytes()), now()).unwrap_err();
        assert_eq!(refused.refused, RefusalCode::NotYours);
        let forged = of(1).text().replace("\"x\"", "\"y\"");
        assert_eq!(told(&event(Verb::Create, forged.as_bytes()), now()).unwrap_err().refused, RefusalCode::Invalid);
    }

    #[test]
    fn a_removal_is_checked_and_what_is_no_resource_is_for_the_applications() {
        let removed = told(&event(Verb::Delete, br#"{"id":"a","version":3}"#), now()).unwrap();
        assert_eq!(removed, Told::Remove(Removal { id: "a".to_owned(), version: 3 }));
        for bad in [&br#"{"id":"a","version":0}"#[..], br#"{"id":"","version":3}"#, b"[]", b"\xff"] {
            assert_eq!(told(&event(Verb::Delete, bad), now()).unwrap_err().refused, RefusalCode::Invalid);
        }
        for spelt in ["", "resource", "Data", " data_resource "] {
            let nameless = Event { datatype: spelt.to_owned(), ..event(Verb::Create, b"{}") };
            assert!(told(&nameless, now()).is_err(), "{spelt:?} is a resource, and that is none");
        }
        let booking = Event { datatype: "booking".to_owned(), ..event(Verb::Create, b"{}") };
        assert_eq!(told(&booking, now()), Ok(Told::Other));
    }
}
