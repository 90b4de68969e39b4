//! How long messages are on the wire, without writing them.
//!
//! Each message of a run is counted, and a peer id alone takes longer to write than all the rest of a message. Each
//! function names every field of its message, so that whoever adds one has to count it here.

use libp2p_identity::PeerId;
use multiaddr::{Multiaddr, Protocol};
use serde::Serialize;

use crate::wire::{
    AddrInfo, Answer, ChallengeAnswer, DhtValues, Heartbeat, HeartbeatResponse, Refused, WitnessReport, WitnessRequest,
};

/// A peer id that holds an Ed25519 key: so many bytes, beginning with these, and so many letters of base 58.
const KEY_ID_BYTES: usize = 38;
const KEY_ID_START: [u8; 4] = [0x08, 0x01, 0x12, 0x20];
const KEY_ID_LETTERS: usize = 52;

/// Bytes of a value on the wire, its line feed included, by writing it.
pub(super) fn written(value: &impl Serialize) -> usize {
    bare(value) + 1
}

/// A heartbeat or a probe.
pub(super) fn heartbeat(heartbeat: &Heartbeat) -> usize {
    let Heartbeat {
        seq,
        name,
        did,
        peer_id,
        timestamp,
        need,
        record,
        values,
        challenges,
        challenge_did,
        referent,
        probe,
        presence,
        traceparent,
    } = heartbeat;
    let challenges = challenges.iter().map(peer);
    Object::default()
        .field("seq", number(*seq))
        .field("name", text(name))
        .field("did", text(did))
        .field("peer_id", peer(peer_id))
        .field("timestamp", number(timestamp.unsigned_abs()) + usize::from(timestamp.is_negative()))
        .field("need", number(u64::from(*need)))
        .some("record", record.as_ref().map(|record| record.get().len()))
        .some("values", values.as_ref().map(dht_values))
        .rows("challenges", challenges)
        .some("challenge_did", challenge_did.as_ref().map(|did| text(did)))
        .field("referent", word(*referent))
        .some("probe", probe.then(|| word(*probe)))
        .some("presence", presence.as_ref().map(|presence| presence.get().len()))
        .some("traceparent", (!traceparent.is_empty()).then(|| bare(traceparent)))
        .line()
}

/// The answer to a heartbeat.
pub(super) fn answer(answer: &Answer<HeartbeatResponse>) -> usize {
    match answer {
        Answer::Given(given) => response(given),
        Answer::Refused(refused) => self::refused(refused),
    }
}

fn response(response: &HeartbeatResponse) -> usize {
    let HeartbeatResponse {
        seq,
        record_seq,
        served_us,
        fill_rate,
        peer_count,
        max_nodes,
        born_at,
        challenges,
        dht_found,
        dht_payload,
        witnesses,
        suggestions,
        suggest_migrate,
    } = response;
    Object::default()
        .field("seq", number(*seq))
        .some("record_seq", record_seq.map(number))
        .field("served_us", number(*served_us))
        .field("fill_rate", bare(fill_rate))
        .field("peer_count", number(u64::from(*peer_count)))
        .field("max_nodes", number(u64::from(*max_nodes)))
        .field("born_at", bare(born_at))
        .rows("challenges", challenges.iter().map(challenge))
        .some("dht_found", dht_found.map(word))
        .some("dht_payload", dht_payload.as_ref().map(|payload| payload.get().len()))
        .rows("witnesses", witnesses.iter().map(info))
        .rows("suggestions", suggestions.iter().map(info))
        .some("suggest_migrate", suggest_migrate.then(|| word(*suggest_migrate)))
        .line()
}

fn refused(refused: &Refused) -> usize {
    let Refused { refused, detail, seq, retry_after, alternatives } = refused;
    Object::default()
        .field("refused", bare(refused))
        .field("detail", text(detail))
        .some("seq", seq.map(number))
        .some("retry_after", retry_after.map(number))
        .rows("alternatives", alternatives.iter().map(info))
        .line()
}

fn challenge(challenge: &ChallengeAnswer) -> usize {
    let ChallengeAnswer { peer_id, found, last_seen } = challenge;
    Object::default()
        .field("peer_id", peer(peer_id))
        .field("found", word(*found))
        .some("last_seen", last_seen.as_ref().map(bare))
        .bare()
}

fn dht_values(values: &DhtValues) -> usize {
    let DhtValues { pid, name } = values;
    Object::default().field("pid", pid.get().len()).field("name", name.get().len()).bare()
}

/// The answer to a question for candidates.
pub(super) fn candidates(candidates: &[AddrInfo]) -> usize {
    Object::default().field("candidates", array(candidates.iter().map(info))).line()
}

/// The others that a word of leaving names, each with what separates them.
pub(super) fn alternatives(alternatives: &[AddrInfo]) -> usize {
    alternatives.iter().map(|alternative| info(alternative) + 1).sum()
}

/// A question to a witness.
pub(super) fn witness_request(request: &WitnessRequest) -> usize {
    let WitnessRequest { indexer_peer_id, is_try } = request;
    Object::default().field("indexer_peer_id", peer(indexer_peer_id)).some("try", is_try.then(|| word(*is_try))).line()
}

/// What a witness tells.
pub(super) fn witness_report(report: &WitnessReport) -> usize {
    let WitnessReport { seen, born_at, fill_rate, connected } = report;
    Object::default()
        .field("seen", word(*seen))
        .some("born_at", born_at.as_ref().map(bare))
        .some("fill_rate", fill_rate.as_ref().map(bare))
        .some("connected", connected.map(word))
        .line()
}

/// An object, field by field.
#[derive(Clone, Copy, Debug, Default)]
struct Object {
    fields: usize,
}

impl Object {
    /// A field with its quotes, its colon, and the comma or the brace after it.
    fn field(self, name: &str, value: usize) -> Self {
        Self { fields: self.fields + name.len() + 4 + value }
    }

    fn some(self, name: &str, value: Option<usize>) -> Self {
        value.map_or(self, |value| self.field(name, value))
    }

    /// A list that is left out when it is empty.
    fn rows(self, name: &str, rows: impl ExactSizeIterator<Item = usize>) -> Self {
        if rows.len() == 0 { self } else { self.field(name, array(rows)) }
    }

    fn bare(self) -> usize {
        1 + self.fields
    }

    fn line(self) -> usize {
        self.bare() + 1
    }
}

fn array(rows: impl ExactSizeIterator<Item = usize>) -> usize {
    // Two brackets, and a comma between each two.
    2 + rows.len().saturating_sub(1) + rows.sum::<usize>()
}

fn number(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn word(is_so: bool) -> usize {
    if is_so { "true".len() } else { "false".len() }
}

fn text(text: &str) -> usize {
    let is_plain = text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
    if is_plain { text.len() + 2 } else { bare(&text) }
}

fn peer(peer: &PeerId) -> usize {
    let multihash = peer.as_ref();
    let is_key = multihash.code() == 0
        && usize::from(multihash.size()) == KEY_ID_BYTES - 2
        && multihash.digest().starts_with(&KEY_ID_START);
    2 + if is_key { KEY_ID_LETTERS } else { peer.to_base58().len() }
}

fn info(info: &AddrInfo) -> usize {
    let AddrInfo { id, addrs } = info;
    Object::default().field("ID", peer(id)).field("Addrs", array(addrs.iter().map(addr))).bare()
}

fn addr(addr: &Multiaddr) -> usize {
    let part = |part: Protocol<'_>| match part {
        Protocol::Ip4(ip) => {
            Some("/ip4/".len() + 3 + ip.octets().map(|octet| number(u64::from(octet))).iter().sum::<usize>())
        }
        Protocol::Tcp(port) => Some("/tcp/".len() + number(u64::from(port))),
        _ => None,
    };
    2 + addr.iter().map(part).sum::<Option<usize>>().unwrap_or_else(|| addr.to_string().len())
}

/// By writing it, without a line feed.
fn bare(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and what is on the wire can be written.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use proptest::{option, prelude::*};
    use serde_json::value::RawValue;

    use super::*;
    use crate::{identity::Keys, trace::Traceparent, wire::CandidatesResponse, wire::RefusalCode};

    /// Those that hold a key, and those that hold the hash of one.
    fn a_peer() -> impl Strategy<Value = PeerId> {
        let hashed = |bytes: [u8; 32]| PeerId::from_bytes(&[&[0x12, 0x20][..], &bytes].concat()).unwrap();
        prop_oneof![
            4 => any::<[u8; 32]>().prop_map(|seed| Keys::from_seed(seed).peer_id()),
            1 => any::<[u8; 32]>().prop_map(hashed),
        ]
    }

    fn an_addr() -> impl Strategy<Value = Multiaddr> {
        let tcp =
            |(ip, port): ([u8; 4], u16)| Multiaddr::empty().with(Protocol::Ip4(ip.into())).with(Protocol::Tcp(port));
        let name = |name: String| format!("/dns4/{name}/tcp/1").parse().unwrap();
        prop_oneof![3 => any::<([u8; 4], u16)>().prop_map(tcp), 1 => "[a-z]{1,9}".prop_map(name)]
    }

    fn an_info() -> impl Strategy<Value = AddrInfo> {
        (a_peer(), prop::collection::vec(an_addr(), 0..3)).prop_map(|(id, addrs)| AddrInfo { id, addrs })
    }

    fn infos() -> impl Strategy<Value = Vec<AddrInfo>> {
        prop::collection::vec(an_info(), 0..4)
    }

    fn a_raw() -> impl Strategy<Value = Box<RawValue>> {
        any::<u64>().prop_map(|number| RawValue::from_string(format!("{{\"a\":{number}}}")).unwrap())
    }

    fn a_time() -> impl Strategy<Value = Timestamp> {
        (0_i64..4_000_000_000, 0_i32..1_000_000_000).prop_map(|(secs, nanos)| Timestamp::new(secs, nanos).unwrap())
    }

    fn a_heartbeat() -> impl Strategy<Value = Heartbeat> {
        let values = (a_raw(), a_raw()).prop_map(|(pid, name)| DhtValues { pid, name });
        let traceparent = prop_oneof![
            Just(Traceparent::Absent),
            Just(serde_json::from_str("\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"").unwrap()),
        ];
        let said =
            (any::<u64>(), ".{0,9}", ".{0,9}", a_peer(), any::<i64>(), any::<u32>(), any::<bool>(), any::<bool>());
        let more = (
            option::of(a_raw()),
            option::of(values),
            prop::collection::vec(a_peer(), 0..4),
            option::of(".{0,9}"),
            option::of(a_raw()),
            traceparent,
        );
        (said, more).prop_map(|(said, more)| {
            let (seq, name, did, peer_id, timestamp, need, referent, probe) = said;
            let (record, values, challenges, challenge_did, presence, traceparent) = more;
            Heartbeat {
                seq,
                name,
                did,
                peer_id,
                timestamp,
                need,
                record,
                values,
                challenges,
                challenge_did,
                referent,
                probe,
                presence,
                traceparent,
            }
        })
    }

    fn a_response() -> impl Strategy<Value = HeartbeatResponse> {
        let challenge = (a_peer(), any::<bool>(), option::of(a_time()))
            .prop_map(|(peer_id, found, last_seen)| ChallengeAnswer { peer_id, found, last_seen });
        let said =
            (any::<u64>(), option::of(any::<u64>()), any::<u64>(), 0.0..1.0, any::<u32>(), any::<u32>(), a_time());
        let more = (
            prop::collection::vec(challenge, 0..4),
            option::of(any::<bool>()),
            option::of(a_raw()),
            infos(),
            infos(),
            any::<bool>(),
        );
        (said, more).prop_map(|(said, more)| {
            let (seq, record_seq, served_us, fill_rate, peer_count, max_nodes, born_at) = said;
            let (challenges, dht_found, dht_payload, witnesses, suggestions, suggest_migrate) = more;
            HeartbeatResponse {
                seq,
                record_seq,
                served_us,
                fill_rate,
                peer_count,
                max_nodes,
                born_at,
                challenges,
                dht_found,
                dht_payload,
                witnesses,
                suggestions,
                suggest_migrate,
            }
        })
    }

    proptest! {
        #[test]
        fn a_question_is_as_long_as_it_is_written(question in a_heartbeat()) {
            prop_assert_eq!(heartbeat(&question), written(&question));
        }

        #[test]
        fn an_answer_is_as_long_as_it_is_written(given in a_response()) {
            let given = Answer::Given(given);
            prop_assert_eq!(answer(&given), written(&given));
        }

        #[test]
        fn a_refusal_is_as_long_as_it_is_written(
            detail in ".{0,9}", seq in option::of(any::<u64>()), secs in option::of(any::<u64>()), others in infos()
        ) {
            let refused = Refused { seq, retry_after: secs, alternatives: others, ..Refused::new(RefusalCode::Busy, detail) };
            let refused = Answer::Refused(refused);
            prop_assert_eq!(answer(&refused), written(&refused));
        }

        #[test]
        fn candidates_are_as_long_as_they_are_written(others in infos()) {
            let told = others.iter().map(written).sum::<usize>();
            prop_assert_eq!(alternatives(&others), told);
            prop_assert_eq!(candidates(&others), written(&CandidatesResponse { candidates: others }));
        }

        #[test]
        fn words_of_witnesses_are_as_long_as_they_are_written(
            about in a_peer(),
            is_try in any::<bool>(),
            seen in any::<bool>(),
            born_at in option::of(a_time()),
            fill_rate in option::of(0.0..1.0),
            connected in option::of(any::<bool>()),
        ) {
            let request = WitnessRequest { indexer_peer_id: about, is_try };
            prop_assert_eq!(witness_request(&request), written(&request));
            let report = WitnessReport { seen, born_at, fill_rate, connected };
            prop_assert_eq!(witness_report(&report), written(&report));
        }
    }
}
