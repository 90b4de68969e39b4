//! Which partners hear of a change: those that may see the resource now, and those that could until now.

use libp2p_identity::PeerId;

use super::Resource;
use crate::event::Verb;

/// What one partner hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// Who.
    pub partner: PeerId,
    /// [`Verb::Create`], [`Verb::Update`] or [`Verb::Delete`].
    pub verb: Verb,
}

/// What each partner hears when `before` becomes `after`; nothing stands for a resource that is not there.
///
/// Whoever may no longer see a resource hears that it is gone, so that nobody keeps what was taken from it. Who could see
/// it neither before nor after hears nothing.
#[must_use]
pub fn spread<'a>(
    before: Option<&Resource>,
    after: Option<&Resource>,
    partners: impl IntoIterator<Item = &'a PeerId>,
) -> Vec<News> {
    let is_shared =
        |resource: Option<&Resource>, partner: &PeerId| resource.is_some_and(|it| it.is_shared_with(partner));
    let news = |partner: &PeerId| {
        let verb = match (is_shared(before, partner), is_shared(after, partner)) {
            (false, true) => Verb::Create,
            (true, true) => Verb::Update,
            (true, false) => Verb::Delete,
            (false, false) => return None,
        };
        Some(News { partner: *partner, verb })
    };
    partners.into_iter().filter_map(news).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        catalogue::{Access, Instance, Kind, Partnership},
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

    #[test]
    fn each_partner_hears_what_changed_for_it() {
        let [ann, bob] = [2, 3].map(|n| Keys::from_seed([n; 32]).peer_id());
        let (public, for_ann) = (resource(Access::Public, None), resource(Access::Private, Some(ann)));
        let heard = |before, after| -> Vec<(PeerId, Verb)> {
            spread(before, after, &[ann, bob]).into_iter().map(|news| (news.partner, news.verb)).collect()
        };
        assert_eq!(heard(None, Some(&public)), [(ann, Verb::Create), (bob, Verb::Create)]);
        assert_eq!(heard(Some(&public), Some(&for_ann)), [(ann, Verb::Update), (bob, Verb::Delete)]);
        assert_eq!(heard(Some(&for_ann), Some(&public)), [(ann, Verb::Update), (bob, Verb::Create)]);
        assert_eq!(heard(Some(&for_ann), None), [(ann, Verb::Delete)]);
        assert_eq!(heard(None, Some(&resource(Access::Private, None))), []);
    }
}
