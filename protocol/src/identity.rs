//! Who a peer is: its key, the names that derive from it, and the pre-shared key of its network.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{
    Signer, SigningKey,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes, spki::der::pem::LineEnding},
};
use libp2p_identity::PeerId;
use rand::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

/// The label of the PEM block that a key file holds.
const PEM_LABEL: &str = "PRIVATE KEY";

/// Why a text is no identity key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Nothing in it.
    #[error("the key file is empty, expected one PEM block \"{PEM_LABEL}\"")]
    Empty,
    /// Not PEM.
    #[error("the key file has no PEM block, expected \"-----BEGIN {PEM_LABEL}-----\"")]
    NotPem,
    /// A block of another kind.
    #[error("the key file holds a block \"{label}\", expected \"{PEM_LABEL}\" (PKCS#8)")]
    OtherKind {
        /// Its label.
        label: String,
    },
    /// More than one block: which one is meant cannot be known.
    #[error("the key file holds {count} PEM blocks, expected one")]
    SeveralBlocks {
        /// How many.
        count: usize,
    },
    /// The block does not end.
    #[error("the key file is truncated: no \"-----END {PEM_LABEL}-----\"")]
    Truncated,
    /// The block's text is damaged, or its key is of another algorithm.
    #[error("the key file is damaged or of another algorithm, expected an Ed25519 key in PKCS#8: {cause}")]
    Damaged {
        /// In the words of the decoder.
        cause: String,
    },
}

/// The Ed25519 key of a peer, wiped from memory when dropped, with what derives from it.
#[derive(Clone)]
pub struct Keys {
    signing: SigningKey,
    pub_key: String,
    peer_id: PeerId,
}

impl Keys {
    /// A new key from a source of chance.
    pub fn generate(chance: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        chance.fill_bytes(&mut *seed);
        Self::from_seed(*seed)
    }

    /// The key of these 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let signing = SigningKey::from_bytes(&Zeroizing::new(seed));
        let public = signing.verifying_key().to_bytes();
        Self { pub_key: BASE64.encode(public), peer_id: peer_id_of(&public), signing }
    }

    /// Reads the one PKCS#8 block of a key file.
    ///
    /// # Errors
    /// When the text is empty, no PEM, of another kind, truncated, damaged, or holds several blocks.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        check_pem(pem)?;
        let signing =
            SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| KeyError::Damaged { cause: error.to_string() })?;
        Ok(Self::from_seed(signing.to_bytes()))
    }

    /// The key as a PKCS#8 PEM block, readable by other tools; wiped from memory when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        // Without the public half, which would make it the second version of the format, that few tools read.
        let pair = KeypairBytes { secret_key: self.signing.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).expect("32 bytes can be written as PKCS#8")
    }

    /// The peer id of the key.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The raw public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.signing.verifying_key().to_bytes()
    }

    /// The public key as signed objects write it: base64 of the raw 32 bytes.
    #[must_use]
    pub fn pub_key(&self) -> &str {
        &self.pub_key
    }

    /// The `did:key` of the key.
    #[must_use]
    pub fn did(&self) -> Did {
        did_of(&self.public())
    }

    /// Signs bytes. What is signed begins with a domain tag: see [`crate::signed`].
    #[must_use]
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    /// The same key for libp2p's own handshakes.
    #[must_use]
    pub fn to_libp2p(&self) -> libp2p_identity::Keypair {
        libp2p_identity::Keypair::ed25519_from_bytes(self.signing.to_bytes()).expect("32 bytes are an Ed25519 key")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("peer_id", &self.peer_id).finish_non_exhaustive()
    }
}

/// Finds what is wrong with a key file in words that its owner can use, before the decoder speaks of ASN.1.
fn check_pem(pem: &str) -> Result<(), KeyError> {
    let labels = |begin: &'static str| {
        pem.lines().filter_map(move |line| line.trim().strip_prefix(begin)?.strip_suffix("-----"))
    };
    if pem.trim().is_empty() {
        return Err(KeyError::Empty);
    }
    let count = labels("-----BEGIN ").count();
    match labels("-----BEGIN ").next() {
        None => Err(KeyError::NotPem),
        Some(_) if count > 1 => Err(KeyError::SeveralBlocks { count }),
        Some(label) if label != PEM_LABEL => Err(KeyError::OtherKind { label: label.chars().take(40).collect() }),
        Some(_) if labels("-----END ").next().is_none() => Err(KeyError::Truncated),
        Some(_) => Ok(()),
    }
}

/// How the peer id of every Ed25519 key begins: identity multihash of 36 bytes; in them: key type Ed25519, and 32 bytes
/// of key.
const PEER_ID_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The peer id of a raw Ed25519 key: the identity multihash of its protobuf form.
#[must_use]
pub fn peer_id_of(pub_key: &[u8; 32]) -> PeerId {
    PeerId::from_bytes(&[&PEER_ID_PREFIX[..], pub_key].concat())
        .expect("an identity multihash of 36 bytes is a peer id")
}

/// The raw Ed25519 key that a peer id holds; nothing for one that is a hash, or of a key of another kind.
#[must_use]
pub fn key_of(peer: &PeerId) -> Option<[u8; 32]> {
    peer.to_bytes().strip_prefix(&PEER_ID_PREFIX)?.try_into().ok()
}

/// The `did:key` of a raw Ed25519 key.
#[must_use]
pub fn did_of(pub_key: &[u8; 32]) -> Did {
    Did::Key(*pub_key)
}

/// A decentralised identifier: of a key, or a UUID that the network binds to the first key seen for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Did {
    /// `did:key:z6Mk…`, the raw Ed25519 key.
    Key([u8; 32]),
    /// A UUID as the predecessor gave them out.
    Uuid(Uuid),
}

/// The text before the base58 of a `did:key`; `z` is the multibase of base58btc.
const DID_KEY_PREFIX: &str = "did:key:z";

/// Multicodec of an Ed25519 public key.
const DID_KEY_CODEC: [u8; 2] = [0xed, 0x01];

/// Characters of the longest text that can be a DID: 34 bytes in base58 are at most 47.
const DID_CHARS_MAX: usize = DID_KEY_PREFIX.len() + 47;

/// Why a text is no DID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DidError {
    /// Neither of the two forms.
    #[error("got neither \"did:key:z…\" nor a UUID in lower case")]
    OtherForm,
    /// A `did:key` that is not base58 of an Ed25519 key.
    #[error("got a did:key that is not the base58 of an Ed25519 key")]
    OtherKey,
}

impl FromStr for Did {
    type Err = DidError;

    /// Only the one text that [`Did`] writes is taken, since the text is a key of the DHT.
    fn from_str(text: &str) -> Result<Self, DidError> {
        if text.len() > DID_CHARS_MAX {
            return Err(DidError::OtherForm);
        }
        if let Some(base58) = text.strip_prefix(DID_KEY_PREFIX) {
            let bytes = bs58::decode(base58).into_vec().map_err(|_| DidError::OtherKey)?;
            let key = bytes.strip_prefix(&DID_KEY_CODEC).ok_or(DidError::OtherKey)?;
            return key.try_into().map(Self::Key).map_err(|_| DidError::OtherKey);
        }
        let uuid = Uuid::try_parse(text).map_err(|_| DidError::OtherForm)?;
        if Self::Uuid(uuid).to_string() == text { Ok(Self::Uuid(uuid)) } else { Err(DidError::OtherForm) }
    }
}

impl fmt::Display for Did {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => {
                let base58 = bs58::encode([&DID_KEY_CODEC[..], key].concat()).into_string();
                write!(f, "{DID_KEY_PREFIX}{base58}")
            }
            Self::Uuid(uuid) => write!(f, "{}", uuid.hyphenated()),
        }
    }
}

impl Serialize for Did {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Did {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// First line of a pre-shared key file.
pub(crate) const PSK_HEADER: &str = "/key/swarm/psk/1.0.0/";

/// Second line, which names the encoding of the third.
const PSK_ENCODING: &str = "/base16/";

/// Hexadecimal digits of the third line.
const PSK_DIGITS: usize = 64;

/// Why a text is no pre-shared key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreSharedKeyError {
    /// Nothing in it.
    #[error("the pre-shared key file is empty, expected \"{PSK_HEADER}\" in its first line")]
    Empty,
    /// Another first line.
    #[error("the first line is not \"{PSK_HEADER}\"")]
    OtherHeader,
    /// Another encoding than base16.
    #[error("the second line is not \"{PSK_ENCODING}\"")]
    OtherEncoding,
    /// The third line is too short or too long.
    #[error("the third line has {got} characters, expected {PSK_DIGITS} hexadecimal digits")]
    OtherLength {
        /// Its characters.
        got: usize,
    },
    /// The third line has a character that is no digit.
    #[error("character {at} of the third line is no hexadecimal digit")]
    NotHexadecimal {
        /// Counted from 1. The character itself is part of a secret and is not told.
        at: usize,
    },
    /// Something stands behind the third line.
    #[error("line {line} is not empty, expected three lines")]
    MoreLines {
        /// Counted from 1.
        line: usize,
    },
}

/// The key that all members of a private network share, wiped from memory when dropped.
#[derive(Clone)]
pub struct PreSharedKey(Zeroizing<[u8; 32]>);

impl PreSharedKey {
    /// A new one from a source of chance.
    pub fn generate(chance: &mut impl CryptoRng) -> Self {
        let mut key = Self(Zeroizing::new([0; 32]));
        chance.fill_bytes(&mut *key.0);
        key
    }

    /// The key of these 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The content of a key file in the form that every libp2p reads.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PSK_HEADER}\n{PSK_ENCODING}\n{}\n", &*hex(&*self.0)))
    }

    /// What may be shown and compared: the first 8 bytes of the key's SHA-256 in hex. The key cannot be found from it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(*self.0)[..8]).to_string()
    }
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    let digit = |four: u8| char::from_digit(four.into(), 16).expect("four bits are one hexadecimal digit");
    Zeroizing::new(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

impl FromStr for PreSharedKey {
    type Err = PreSharedKeyError;

    fn from_str(text: &str) -> Result<Self, PreSharedKeyError> {
        if text.trim().is_empty() {
            return Err(PreSharedKeyError::Empty);
        }
        let mut lines = text.lines().map(str::trim);
        if lines.next() != Some(PSK_HEADER) {
            return Err(PreSharedKeyError::OtherHeader);
        }
        if lines.next() != Some(PSK_ENCODING) {
            return Err(PreSharedKeyError::OtherEncoding);
        }
        let key = read_hex(lines.next().unwrap_or_default())?;
        match lines.position(|line| !line.is_empty()) {
            Some(behind) => Err(PreSharedKeyError::MoreLines { line: behind + 4 }),
            None => Ok(key),
        }
    }
}

fn read_hex(line: &str) -> Result<PreSharedKey, PreSharedKeyError> {
    let got = line.chars().count();
    if got != PSK_DIGITS {
        return Err(PreSharedKeyError::OtherLength { got });
    }
    let mut key = PreSharedKey::from_bytes([0; 32]);
    for (at, digit) in line.chars().enumerate() {
        let four = digit.to_digit(16).and_then(|four| u8::try_from(four).ok());
        let four = four.ok_or(PreSharedKeyError::NotHexadecimal { at: at + 1 })?;
        key.0[at / 2] = key.0[at / 2] << 4 | four;
    }
    Ok(key)
}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PreSharedKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn keys() -> Keys {
        Keys::from_seed([7; 32])
    }

    /// Every damage that an owner may do to the file of `keys()`, made here, never taken from a file.
    fn framed(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    fn body() -> String {
        keys().to_pem().lines().nth(1).unwrap().to_owned()
    }

    #[test]
    fn a_key_that_was_written_is_read_again() {
        let pem = keys().to_pem();
        assert_eq!(Keys::from_pem(&pem).unwrap().public(), keys().public());
        assert_eq!(Keys::from_pem(&pem.replace('\n', "\r\n")).unwrap().peer_id(), keys().peer_id());
        assert_eq!(Keys::from_pem(&format!("\n\n{}\n", &*pem)).unwrap().peer_id(), keys().peer_id());
    }

    #[test]
    fn a_key_of_the_rfcs_example_is_read() {
        // RFC 8410, section 10.3: a published example, of no worth to anybody.
        let pem = framed(PEM_LABEL, "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC");
        assert_eq!(Keys::from_pem(&pem).unwrap().pub_key(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    }

    #[test]
    fn a_bad_key_file_is_refused_in_clear_words() {
        let pem = keys().to_pem().to_string();
        let check = |text: &str, words: &str| {
            let error = Keys::from_pem(text).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        };
        check("", "empty");
        check(" \n\n", "empty");
        check("hello", "no PEM block");
        check(&body(), "no PEM block");
        check(&framed("OPENSSH PRIVATE KEY", &body()), "OPENSSH PRIVATE KEY");
        check(&framed("EC PRIVATE KEY", &body()), "EC PRIVATE KEY");
        check(&framed("PUBLIC KEY", &body()), "\"PUBLIC KEY\"");
        check(&framed("ENCRYPTED PRIVATE KEY", &body()), "ENCRYPTED");
        check(&format!("{pem}{pem}"), "2 PEM blocks");
        check(&pem[..pem.len() - 10], "truncated");
        check(&pem[..40], "truncated");
        check(&framed(PEM_LABEL, ""), "damaged");
        check(&framed(PEM_LABEL, &body()[..40]), "damaged");
        check(&framed(PEM_LABEL, &body().replace("MC4CAQ", "MC4CAR")), "damaged");
        // An X25519 key: the same form, another algorithm.
        check(&framed(PEM_LABEL, &body().replace("K2Vw", "K2Vu")), "another algorithm");
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", keys());
        assert!(!shown.contains("7, 7"), "{shown}");
        assert!(shown.contains(&keys().peer_id().to_string()));
        let psk = PreSharedKey::from_bytes([0xab; 32]);
        assert!(!format!("{psk:?}").contains("abab"));
    }

    #[test]
    fn the_peer_id_is_that_of_libp2p() {
        assert_eq!(keys().to_libp2p().public().to_peer_id(), keys().peer_id());
        assert_eq!(keys().to_libp2p().public().try_into_ed25519().unwrap().to_bytes(), keys().public());
    }

    #[test]
    fn the_did_is_that_of_the_w3c() {
        // The Ed25519 example of the did:key method specification.
        let text = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp";
        let did: Did = text.parse().unwrap();
        assert!(matches!(did, Did::Key(_)));
        assert_eq!(did.to_string(), text);
        assert!(keys().did().to_string().starts_with("did:key:z6Mk"));
        assert_eq!(keys().did().to_string().parse::<Did>(), Ok(did_of(&keys().public())));
    }

    #[test]
    fn a_did_has_one_text_only() {
        let uuid = "c0a80121-7ac0-4e1c-9b1f-2f3f8a0e1d55";
        assert_eq!(uuid.parse::<Did>().unwrap().to_string(), uuid);
        let other = uuid.to_uppercase();
        let simple = uuid.replace('-', "");
        let braced = format!("{{{uuid}}}");
        let urn = format!("urn:uuid:{uuid}");
        for text in ["", "did:web:example.org", "did:key:6Mk", &other, &simple, &braced, &urn, &"x".repeat(1000)] {
            assert_eq!(text.parse::<Did>(), Err(DidError::OtherForm), "{text}");
        }
        for text in [
            "did:key:z",
            "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooW",
            "did:key:z0OIl",
            "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
        ] {
            assert_eq!(text.parse::<Did>(), Err(DidError::OtherKey), "{text}");
        }
    }

    #[test]
    fn a_pre_shared_key_that_was_written_is_read_again() {
        let psk = PreSharedKey::from_bytes([0x5a; 32]);
        let text = psk.to_text();
        assert_eq!(*text, format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "5a".repeat(32)));
        let same = |text: &str| assert_eq!(text.parse::<PreSharedKey>().unwrap().as_bytes(), psk.as_bytes());
        same(&text);
        same(text.trim_end());
        same(&text.replace('\n', "\r\n"));
        same(&text.replace("5a", "5A"));
        same(&format!("{}\n\n", &*text));
    }

    #[test]
    fn a_bad_pre_shared_key_is_refused_in_clear_words() {
        let text = PreSharedKey::from_bytes([0x5a; 32]).to_text().to_string();
        let check =
            |text: &str, expected: PreSharedKeyError| assert_eq!(text.parse::<PreSharedKey>().unwrap_err(), expected);
        check("", PreSharedKeyError::Empty);
        check("\n \n", PreSharedKeyError::Empty);
        check("5a5a", PreSharedKeyError::OtherHeader);
        check(&text.replace("1.0.0", "2.0.0"), PreSharedKeyError::OtherHeader);
        check(&text.replace("base16", "base64"), PreSharedKeyError::OtherEncoding);
        check("/key/swarm/psk/1.0.0/", PreSharedKeyError::OtherEncoding);
        check("/key/swarm/psk/1.0.0/\n/base16/", PreSharedKeyError::OtherLength { got: 0 });
        check(text.trim_end().strip_suffix('a').unwrap(), PreSharedKeyError::OtherLength { got: 63 });
        check(&format!("{}0", text.trim_end()), PreSharedKeyError::OtherLength { got: 65 });
        check(&text.replacen("5a5a", "5a5g", 1), PreSharedKeyError::NotHexadecimal { at: 4 });
        check(&format!("{text}\nmore"), PreSharedKeyError::MoreLines { line: 5 });
    }

    #[test]
    fn a_fingerprint_names_a_key_without_telling_it() {
        let of = |byte| PreSharedKey::from_bytes([byte; 32]).fingerprint();
        assert_eq!(of(0), "66687aadf862bd77");
        assert_ne!(of(0), of(1));
    }

    #[test]
    fn the_same_chance_gives_the_same_key() {
        let key = |seed| Keys::generate(&mut StdRng::seed_from_u64(seed)).peer_id();
        assert_eq!(key(1), key(1));
        assert_ne!(key(1), key(2));
        let psk = |seed| PreSharedKey::generate(&mut StdRng::seed_from_u64(seed)).fingerprint();
        assert_eq!(psk(1), psk(1));
        assert_ne!(psk(1), psk(2));
    }

    proptest! {
        #[test]
        fn every_peer_id_is_that_of_libp2p(seed in any::<[u8; 32]>()) {
            let keys = Keys::from_seed(seed);
            prop_assert_eq!(keys.to_libp2p().public().to_peer_id(), keys.peer_id());
            prop_assert_eq!(Keys::from_pem(&keys.to_pem()).unwrap().public(), keys.public());
        }

        #[test]
        fn every_key_has_a_did_that_is_read_again(key in any::<[u8; 32]>()) {
            let text = did_of(&key).to_string();
            prop_assert!(text.len() <= DID_CHARS_MAX);
            prop_assert_eq!(text.parse::<Did>(), Ok(Did::Key(key)));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Did>();
            let _ = text.parse::<PreSharedKey>();
            let _ = Keys::from_pem(&text);
        }
    }
}
