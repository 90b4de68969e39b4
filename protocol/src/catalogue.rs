//! The catalogue: what organisations offer each other, and who may see it.
//!
//! A resource is signed by its creator as the text that the creator's application wrote, unknown fields included, with
//! `creator`, `version` and `updated_at` set by the creator's member. Who may see it is decided at its creator, with the
//! identity that the asker proved, for every answer; nobody else answers for it. The same rule stands once more in SQL
//! (`store`), where a table of cases shows that both say the same.

mod draft;
mod query;
mod spread;

use std::fmt;

use jiff::Timestamp;
use libp2p_identity::PeerId;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::{
    draft::{Draft, DraftError},
    query::{QUERY_CHARS_MAX, QueryError, ResourceQuery},
    spread::{Audience, News, Standing, Told},
};
use crate::{
    identity::Keys,
    json::NUMBER_MAX,
    relation::Relation,
    signed::{SignedError, SignedObject, Signer},
};

/// Bytes of a resource's text. In base64 and inside an event it is still a third of what a stream takes.
pub const RESOURCE_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a resource's id.
pub const ID_BYTES_MAX: usize = 128;

/// Characters of a resource's name, type and of one owner's name.
pub const NAME_CHARS_MAX: usize = 256;

/// Characters of the short description.
pub const SHORT_DESCRIPTION_CHARS_MAX: usize = 1_024;

/// Characters of the description.
pub const DESCRIPTION_CHARS_MAX: usize = 16 * 1024;

/// Owners of one resource.
pub const OWNERS_MAX: usize = 32;

/// Instances of one resource.
pub const INSTANCES_MAX: usize = 64;

/// Partnerships of all instances of one resource.
pub const PARTNERSHIPS_MAX: usize = 512;

/// Groups of one partnership, and of one asker.
pub const GROUPS_MAX: usize = 64;

/// Bytes of a group's name.
pub const GROUP_BYTES_MAX: usize = 64;

/// In a partnership: any group of that partner. It never means anybody, and an asker cannot claim it.
pub const ANY_GROUP: &str = "*";

/// How far ahead of our clock `updated_at` may be: what page 8 allows wall clocks to differ.
const AHEAD_MAX_SECS: i64 = 300;

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Machines that compute.
    Compute,
    /// Room to store in.
    Storage,
    /// A program to run.
    Processing,
    /// Data to read.
    Data,
    /// Several of them, tied together.
    Workflow,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Compute, Self::Storage, Self::Processing, Self::Data, Self::Workflow];

    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Storage => "storage",
            Self::Processing => "processing",
            Self::Data => "data",
            Self::Workflow => "workflow",
        }
    }

    /// The kind of this name. The predecessor wrote `compute_resource` for `compute`, and so with each.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = name.strip_suffix("_resource").unwrap_or(name);
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// Who may see a resource besides those with whom it is shared by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Whoever is not on the blacklist.
    Public,
    /// Nobody.
    #[default]
    Private,
}

/// Groups of one partner that may see a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partnership {
    /// The partner.
    #[serde(with = "crate::wire::text")]
    pub peer: PeerId,
    /// Its groups; [`ANY_GROUP`] for every one of them. Without any, the partner sees nothing.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// One place where a resource is to be had, and who may have it there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// With whom it is shared.
    #[serde(default)]
    pub partnerships: Vec<Partnership>,
}

/// What an organisation offers. Fields that are not named here stay in the signed text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Unique at its creator: letters, digits and `._:-`, at most [`ID_BYTES_MAX`].
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// What people call it.
    pub name: String,
    /// What of its kind, in the words of its creator.
    #[serde(default, rename = "type")]
    pub type_: String,
    /// One line.
    #[serde(default)]
    pub short_description: String,
    /// Many lines.
    #[serde(default)]
    pub description: String,
    /// Names of those that answer for it; read from texts and from objects with a `name`.
    #[serde(default, deserialize_with = "owners")]
    pub owners: Vec<String>,
    /// The member of the organisation that offers it; its key signs.
    #[serde(with = "crate::wire::text")]
    pub creator: PeerId,
    /// Who else may see it.
    #[serde(default)]
    pub access: Access,
    /// Where it is to be had.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// Of two texts of one resource the higher version counts. 1 to 2^53 - 1.
    pub version: u64,
    /// When its creator wrote this version.
    pub updated_at: Timestamp,
}

impl SignedObject for Resource {
    const DOMAIN: &'static str = "muster-resource:1:";
    const SIGNER: Signer = Signer::PeerId("creator");
    const BYTES_MAX: usize = RESOURCE_BYTES_MAX;

    fn is_by(&self, keys: &Keys) -> bool {
        self.creator == keys.peer_id()
    }

    fn check(&self, now: Timestamp) -> Result<(), SignedError> {
        check_id(&self.id)?;
        check_text("name", &self.name, 1, NAME_CHARS_MAX, "1 to 256 characters, none a control character")?;
        check_text("type", &self.type_, 0, NAME_CHARS_MAX, "at most 256 characters, none a control character")?;
        check_lines(
            "short_description",
            &self.short_description,
            SHORT_DESCRIPTION_CHARS_MAX,
            "at most 1,024 characters",
        )?;
        check_lines("description", &self.description, DESCRIPTION_CHARS_MAX, "at most 16,384 characters")?;
        check_count("owners", self.owners.len(), OWNERS_MAX, "at most 32")?;
        for owner in &self.owners {
            check_text("owners", owner, 1, NAME_CHARS_MAX, "names of 1 to 256 characters, none a control character")?;
        }
        check_count("instances", self.instances.len(), INSTANCES_MAX, "at most 64")?;
        check_count("partnerships", self.partnerships().count(), PARTNERSHIPS_MAX, "at most 512 in all instances")?;
        for partnership in self.partnerships() {
            check_count("groups", partnership.groups.len(), GROUPS_MAX, "at most 64")?;
            partnership.groups.iter().try_for_each(|group| check_group(group))?;
        }
        if self.version == 0 || self.version > NUMBER_MAX {
            return Err(invalid("version", self.version, "1 to 2^53 - 1"));
        }
        let ahead = self.updated_at.duration_since(now);
        if ahead.as_secs() > AHEAD_MAX_SECS {
            let ahead_max = std::time::Duration::from_secs(AHEAD_MAX_SECS.unsigned_abs());
            return Err(SignedError::FromFuture { time: self.updated_at, now, ahead_max });
        }
        Ok(())
    }
}

/// Somebody who asks, as far as we know for sure, and the groups that it says its user is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Proved by its connection or its signature, never by a field.
    pub peer: PeerId,
    /// What it is to us.
    pub relation: Relation,
    /// Its own word: they count only where a partnership granted them to this very peer.
    pub groups: Vec<String>,
}

impl Asker {
    /// An asker whose groups are cut to what can count: names within their bounds, at most [`GROUPS_MAX`], and never
    /// [`ANY_GROUP`], which is a word of the grantor.
    #[must_use]
    pub fn new(peer: PeerId, relation: Relation, groups: impl IntoIterator<Item = String>) -> Self {
        let is_name = |group: &String| check_group(group).is_ok() && group != ANY_GROUP;
        Self { peer, relation, groups: groups.into_iter().filter(is_name).take(GROUPS_MAX).collect() }
    }
}

impl Resource {
    /// Every partnership of every instance.
    pub fn partnerships(&self) -> impl Iterator<Item = &Partnership> {
        self.instances.iter().flat_map(|instance| &instance.partnerships)
    }

    /// Whether `own`, its creator, shows it to `asker`; whoever is not its creator shows it to nobody.
    #[must_use]
    pub fn is_shown(&self, own: &PeerId, asker: &Asker) -> bool {
        if self.creator != *own {
            return false;
        }
        if asker.peer == *own {
            return true;
        }
        if asker.relation == Relation::Blacklist {
            return false;
        }
        self.access == Access::Public || self.partnerships().any(|partnership| partnership.grants(asker))
    }

    /// Whether its events go to this partner: some user of it may see the resource.
    #[must_use]
    pub fn is_shared_with(&self, partner: &PeerId) -> bool {
        let names = |partnership: &Partnership| partnership.peer == *partner && !partnership.groups.is_empty();
        self.access == Access::Public || self.partnerships().any(names)
    }
}

impl Partnership {
    fn grants(&self, asker: &Asker) -> bool {
        let is_granted = |group: &String| group == ANY_GROUP || asker.groups.contains(group);
        self.peer == asker.peer && self.groups.iter().any(is_granted)
    }
}

/// A resource is gone: what takes the place of its text, and keeps an older text from coming back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Which.
    pub id: String,
    /// Higher than that of every text that it removes.
    pub version: u64,
}

impl Removal {
    /// Checks its figures.
    ///
    /// # Errors
    /// When the id is none or the version is out of range.
    pub fn check(&self) -> Result<(), SignedError> {
        check_id(&self.id)?;
        if self.version == 0 || self.version > NUMBER_MAX {
            return Err(invalid("version", self.version, "1 to 2^53 - 1"));
        }
        Ok(())
    }
}

/// Whether what comes with `version` changes anything where `held` is held.
#[must_use]
pub fn is_news(version: u64, held: Option<u64>) -> bool {
    held.is_none_or(|held| version > held)
}

/// The next version of a resource whose highest one is `held`: at least the unix milliseconds, so that a creator that
/// lost its database is not silenced by what its partners hold.
#[must_use]
pub fn next_version(held: Option<u64>, now: Timestamp) -> u64 {
    let now = u64::try_from(now.as_millisecond()).unwrap_or(1).max(1);
    held.map_or(now, |held| now.max(held.saturating_add(1))).min(NUMBER_MAX)
}

/// Checks that a text is a resource's id.
///
/// # Errors
/// When it is empty, too long, or has other characters than letters, digits and `._:-`.
pub fn check_id(id: &str) -> Result<(), SignedError> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_part) {
        return Err(invalid("id", id, "1 to 128 letters, digits and ._:-"));
    }
    Ok(())
}

fn check_group(group: &str) -> Result<(), SignedError> {
    if group.is_empty() || group.len() > GROUP_BYTES_MAX || group.contains(char::is_control) {
        return Err(invalid("groups", group, "names of 1 to 64 bytes without control characters"));
    }
    Ok(())
}

fn check_text(
    field: &'static str,
    text: &str,
    min: usize,
    max: usize,
    expected: &'static str,
) -> Result<(), SignedError> {
    let chars = text.chars().count();
    if chars < min || chars > max || text.contains(char::is_control) {
        return Err(invalid(field, text, expected));
    }
    Ok(())
}

/// As [`check_text`], for what may have several lines.
fn check_lines(field: &'static str, text: &str, max: usize, expected: &'static str) -> Result<(), SignedError> {
    let is_control = |char: char| char.is_control() && !matches!(char, '\n' | '\r' | '\t');
    if text.chars().count() > max || text.contains(is_control) {
        return Err(invalid(field, text, expected));
    }
    Ok(())
}

fn check_count(field: &'static str, got: usize, max: usize, expected: &'static str) -> Result<(), SignedError> {
    if got > max { Err(invalid(field, got, expected)) } else { Ok(()) }
}

fn invalid(field: &'static str, got: impl fmt::Display, expected: &'static str) -> SignedError {
    let got = got.to_string().chars().take(64).flat_map(char::escape_debug).collect();
    SignedError::Invalid { field, got, expected }
}

fn owners<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Owner {
        Name(String),
        Object { name: String },
    }
    let owners = Vec::<Owner>::deserialize(from)?;
    Ok(owners
        .into_iter()
        .map(|owner| match owner {
            Owner::Name(name) | Owner::Object { name } => name,
        })
        .collect())
}

#[cfg(test)]
mod tests;
