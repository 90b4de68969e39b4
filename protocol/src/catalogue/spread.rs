//! Which partners hear of a change: those that may see the resource now, and those that know an earlier version of it.
//!
//! An application may change a resource quietly and have it told later. So what is told starts from what partners were
//! told last, which is not always what is held.

use libp2p_identity::PeerId;
use serde::{Deserialize, Serialize};

use super::{Access, Kind, Resource};
use crate::event::Verb;

/// What one partner hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Who.
    pub partner: PeerId,
    /// [`Verb::Create`], [`Verb::Update`] or [`Verb::Delete`].
    pub verb: Verb,
}

/// Who could see a version of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// What it was.
    pub kind: Kind,
    /// Everybody could.
    pub is_public: bool,
    /// Those could with whom it was shared by name.
    pub peers: Vec<PeerId>,
}

impl Audience {
    /// Who may see this resource.
    #[must_use]
    pub fn of(resource: &Resource) -> Self {
        let named = resource.partnerships().filter(|partnership| !partnership.groups.is_empty());
        let mut peers: Vec<PeerId> = named.map(|partnership| partnership.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        Self { kind: resource.kind, is_public: resource.access == Access::Public, peers }
    }

    fn includes(&self, partner: &PeerId) -> bool {
        self.is_public || self.peers.binary_search(partner).is_ok()
    }
}

/// What partners were told last of a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The version; 0 when they were told of none.
    pub version: u64,
    /// Who knows of it, where the version is not the one held: that one's own text says it.
    pub audience: Option<Audience>,
}

/// A resource of ours as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The highest version, also of one that is removed; none of one that never was.
    pub version: Option<u64>,
    /// What it is; none once it is removed.
    pub resource: Option<Resource>,
    /// What partners were told last.
    pub told: Told,
}

impl Standing {
    /// Whether partners were told of it as it stands.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.version.is_none_or(|version| version == self.told.version)
    }

    /// Of what kind it is, or was when partners were told of it last.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let told = || self.told.audience.as_ref().map(|audience| audience.kind);
        self.resource.as_ref().map(|resource| resource.kind).or_else(told)
    }

    /// What each partner hears when this becomes `after`; nothing stands for a resource that is not there.
    ///
    /// Whoever may no longer see a resource hears that it is gone, so that nobody keeps what was taken from it. Who could
    /// see it neither before nor after hears nothing.
    #[must_use]
    pub fn spread<'a>(&self, after: Option<&Resource>, partners: impl IntoIterator<Item = &'a PeerId>) -> Vec<News> {
        let (knew, before) = (self.knew(), self.resource.as_ref());
        let news = |partner: &PeerId| {
            let knew = knew.as_ref().is_some_and(|knew| knew.includes(partner));
            let verb = match (knew, after.is_some_and(|after| after.is_shared_with(partner))) {
                (false, true) => Verb::Create,
                (true, true) => Verb::Update,
                (true, false) => Verb::Delete,
                // It was never told, and could be found.
                (false, false) if before.is_some_and(|before| before.is_shared_with(partner)) => Verb::Delete,
                (false, false) => return None,
            };
            Some(News { partner: *partner, verb })
        };
        partners.into_iter().filter_map(news).collect()
    }

    /// What it is after a change, of which partners are told or not.
    #[must_use]
    pub fn changed(&self, version: u64, resource: Option<Resource>, is_told: bool) -> Self {
        let told = if is_told {
            Told { version, audience: None }
        } else {
            // Of one that is quietly removed its last text says who could find it.
            let last = if resource.is_none() { self.resource.as_ref().map(Audience::of) } else { None };
            Told { version: self.told.version, audience: self.knew().or(last) }
        };
        Self { version: Some(version), resource, told }
    }

    /// Who knows of it what was told last.
    fn knew(&self) -> Option<Audience> {
        match self.version {
            Some(version) if version == self.told.version => self.resource.as_ref().map(Audience::of),
            _ => self.told.audience.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        catalogue::{Instance, Partnership},
        identity::Keys,
    };

    fn resource(access: Access, partner: Option<PeerId>) -> Resource {
        let partnership = |peer| Partnership { peer, groups: vec!["ops".to_owned()] };
        Resource {
            id: "a".to_owned(),
            kind: Kind::Data,
            name: "a".to_owned(),
            type_: String::new(),
            short_description: String::new(),
            description: String::new(),
            owners: vec![],
            creator: Keys::from_seed([1; 32]).peer_id(),
            access,
            instances: vec![Instance { partnerships: partner.map(partnership).into_iter().collect() }],
            version: 1,
            updated_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    fn peers() -> [PeerId; 2] {
        [2, 3].map(|n| Keys::from_seed([n; 32]).peer_id())
    }

    fn heard(before: &Standing, after: Option<&Resource>) -> Vec<(PeerId, Verb)> {
        before.spread(after, &peers()).into_iter().map(|news| (news.partner, news.verb)).collect()
    }

    fn told(resource: &Resource) -> Standing {
        Standing::default().changed(1, Some(resource.clone()), true)
    }

    #[test]
    fn each_partner_hears_what_changed_for_it() {
        let [ann, bob] = peers();
        let (public, for_ann) = (resource(Access::Public, None), resource(Access::Private, Some(ann)));
        let nothing = Standing::default();
        assert_eq!(heard(&nothing, Some(&public)), [(ann, Verb::Create), (bob, Verb::Create)]);
        assert_eq!(heard(&told(&public), Some(&for_ann)), [(ann, Verb::Update), (bob, Verb::Delete)]);
        assert_eq!(heard(&told(&for_ann), Some(&public)), [(ann, Verb::Update), (bob, Verb::Create)]);
        assert_eq!(heard(&told(&for_ann), None), [(ann, Verb::Delete)]);
        assert_eq!(heard(&nothing, Some(&resource(Access::Private, None))), []);
        assert_eq!(heard(&nothing, None), []);
    }

    #[test]
    fn a_quiet_change_is_told_from_where_it_was_told_last() {
        let [ann, bob] = peers();
        let (public, for_ann) = (resource(Access::Public, None), resource(Access::Private, Some(ann)));
        let quiet = told(&public).changed(2, Some(for_ann.clone()), false);
        assert!(told(&public).is_told() && !quiet.is_told());
        // Bob knew it, and lost it while nobody said so.
        assert_eq!(heard(&quiet, Some(&for_ann)), [(ann, Verb::Update), (bob, Verb::Delete)]);
        let told = quiet.changed(2, Some(for_ann.clone()), true);
        assert!(told.is_told());
        assert_eq!(heard(&told, None), [(ann, Verb::Delete)]);
        // However many quiet changes there were.
        let quieter = quiet.changed(3, None, false).changed(4, Some(for_ann.clone()), false);
        assert_eq!(heard(&quieter, Some(&for_ann)), [(ann, Verb::Update), (bob, Verb::Delete)]);
        assert_eq!(quieter.told.version, 1);
    }

    #[test]
    fn a_quiet_removal_is_told_to_those_who_knew() {
        let [ann, bob] = peers();
        let (public, for_ann) = (resource(Access::Public, None), resource(Access::Private, Some(ann)));
        let gone = told(&public).changed(2, None, false);
        assert_eq!((gone.kind(), gone.is_told()), (Some(Kind::Data), false));
        assert_eq!(heard(&gone, None), [(ann, Verb::Delete), (bob, Verb::Delete)]);
        let told = gone.changed(3, None, true);
        assert_eq!((heard(&told, None), told.kind()), (vec![], None), "they were told once");
        // One that was never told goes to those who could find it.
        let never = Standing::default().changed(1, Some(for_ann), false);
        assert_eq!(heard(&never, None), [(ann, Verb::Delete)]);
        assert_eq!(heard(&never.changed(2, None, false), None), [(ann, Verb::Delete)]);
    }

    #[test]
    fn an_audience_is_whom_the_rule_names() {
        let [ann, bob] = peers();
        let mut for_ann = resource(Access::Private, Some(ann));
        // Without any group the partner sees nothing.
        for_ann.instances[0].partnerships.push(Partnership { peer: bob, groups: vec![] });
        for resource in [resource(Access::Public, None), resource(Access::Private, None), for_ann] {
            for peer in peers() {
                assert_eq!(Audience::of(&resource).includes(&peer), resource.is_shared_with(&peer));
            }
        }
    }
}
