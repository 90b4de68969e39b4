#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::signed::Verified;

fn keys(n: u8) -> Keys {
    Keys::from_seed([n; 32])
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn shared(peer: PeerId, groups: &[&str]) -> Vec<Instance> {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    vec![Instance::default(), Instance { partnerships: vec![Partnership { peer, groups }] }]
}

fn resource(access: Access, instances: Vec<Instance>) -> Resource {
    Resource {
        id: "gpu-1".to_owned(),
        kind: Kind::Compute,
        name: "GPU".to_owned(),
        type_: String::new(),
        short_description: String::new(),
        description: String::new(),
        owners: vec![],
        creator: keys(1).peer_id(),
        access,
        instances,
        version: 1,
        updated_at: now(),
    }
}

fn asker(n: u8, relation: Relation, groups: &[&str]) -> Asker {
    Asker::new(keys(n).peer_id(), relation, groups.iter().map(|group| (*group).to_owned()))
}

#[test]
fn g33_who_sees_a_resource_is_decided_by_who_asks() {
    use Relation::{Blacklist, Known, None, Own, Partner};
    let own = keys(1).peer_id();
    let two = keys(2).peer_id();
    let public = || resource(Access::Public, vec![]);
    let private = || resource(Access::Private, vec![]);
    let for_ops = || resource(Access::Private, shared(two, &["ops"]));
    let for_any = || resource(Access::Private, shared(two, &["*"]));
    let for_none = || resource(Access::Private, shared(two, &[]));
    let cases: [(&str, Resource, Asker, bool); 24] = [
        ("public, partner", public(), asker(2, Partner, &[]), true),
        ("public, known", public(), asker(2, Known, &[]), true),
        ("public, no relation", public(), asker(2, None, &[]), true),
        ("public, blacklisted", public(), asker(2, Blacklist, &["*"]), false),
        (
            "public, shared with the blacklisted",
            resource(Access::Public, shared(two, &["*"])),
            asker(2, Blacklist, &[]),
            false,
        ),
        ("private, partner", private(), asker(2, Partner, &["ops"]), false),
        ("private, a star claimed", private(), asker(2, Partner, &["*"]), false),
        ("private, ourselves", private(), asker(1, Own, &[]), true),
        ("shared, its group", for_ops(), asker(2, Partner, &["dev", "ops"]), true),
        ("shared, wrong group", for_ops(), asker(2, Partner, &["dev"]), false),
        ("shared, no group", for_ops(), asker(2, Partner, &[]), false),
        ("shared, a star claimed", for_ops(), asker(2, Partner, &["*"]), false),
        ("shared, another case", for_ops(), asker(2, Partner, &["OPS"]), false),
        ("shared, another peer with the group", for_ops(), asker(3, Partner, &["ops"]), false),
        ("shared, known only", for_ops(), asker(2, Known, &["ops"]), true),
        ("shared, no relation", for_ops(), asker(2, None, &["ops"]), true),
        ("shared, blacklisted", for_ops(), asker(2, Blacklist, &["ops"]), false),
        ("shared with all groups, some group", for_any(), asker(2, Partner, &["dev"]), true),
        ("shared with all groups, no group", for_any(), asker(2, Partner, &[]), true),
        ("shared with all groups, another peer", for_any(), asker(3, Partner, &["dev"]), false),
        ("shared with all groups, another claims a star", for_any(), asker(3, Partner, &["*"]), false),
        ("shared with no group", for_none(), asker(2, Partner, &["ops", "*"]), false),
        ("ours, ourselves without a group", for_none(), asker(1, Own, &[]), true),
        (
            "relayed: another's public",
            Resource { creator: keys(4).peer_id(), ..public() },
            asker(2, Partner, &[]),
            false,
        ),
    ];
    for (case, resource, asker, expected) in cases {
        assert_eq!(resource.is_shown(&own, &asker), expected, "{case}");
    }
}

#[test]
fn events_go_to_partners_that_may_see_in_some_group() {
    let two = keys(2).peer_id();
    let goes = |access, instances| resource(access, instances).is_shared_with(&two);
    assert!(goes(Access::Public, vec![]));
    assert!(goes(Access::Private, shared(two, &["ops"])));
    assert!(!goes(Access::Private, shared(two, &[])));
    assert!(!goes(Access::Private, shared(keys(3).peer_id(), &["*"])));
}

#[test]
fn what_an_application_wrote_is_kept_and_signed_with_it() {
    let text = r#"{"id":"gpu-1","name":"GPU","owners":["Ann",{"name":"Bob","logo":"b.png"}],"price":{"eur":3},
        "creator":"","signature":"old","version":null}"#;
    let draft = Draft::read(text, Some(Kind::Compute)).unwrap();
    assert_eq!((draft.id(), draft.version()), ("gpu-1", None));
    let signed = draft.sign(&keys(1), 7, now()).unwrap();
    assert_eq!((signed.version, signed.owners.clone()), (7, vec!["Ann".to_owned(), "Bob".to_owned()]));
    assert!(signed.text().contains(r#""price":{"eur":3}"#) && !signed.text().contains("old"));
    let opened = Verified::<Resource>::open(signed.text(), now()).unwrap();
    assert_eq!(opened, signed);
    let changed = signed.text().replace("\"eur\":3", "\"eur\":2");
    assert_eq!(Verified::<Resource>::open(&changed, now()).unwrap_err(), SignedError::BadSignature);
}

#[test]
fn a_draft_is_refused_with_what_is_wrong() {
    let read = |text: &str| Draft::read(text, None).and_then(|draft| draft.sign(&keys(1), 1, now())).unwrap_err();
    let other = keys(2).peer_id();
    let cases = [
        ("[]".to_owned(), "not the message expected"),
        (r#"{"name":"x"}"#.to_owned(), "got no text in \"id\""),
        (r#"{"id":"a b","kind":"data","name":"x"}"#.to_owned(), "got a b in \"id\""),
        (r#"{"id":"a","name":"x"}"#.to_owned(), "got no \"kind\""),
        (r#"{"id":"a","kind":"car","name":"x"}"#.to_owned(), "unknown variant `car`"),
        (r#"{"id":"a","kind":"data","name":""}"#.to_owned(), "in \"name\", expected 1 to 256"),
        (r#"{"id":"a","kind":"data","name":"x","version":"new"}"#.to_owned(), "got \\\"new\\\" in \"version\""),
        (format!(r#"{{"id":"a","kind":"data","name":"x","creator":"{other}"}}"#), "which is not this member"),
    ];
    for (text, expected) in cases {
        let error = read(&text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn each_bound_is_taken_and_one_past_it_is_not() {
    let check = |resource: Resource| resource.check(now());
    let base = || resource(Access::Private, vec![]);
    let groups = |count| shared(keys(2).peer_id(), &vec!["g"; count]);
    let many = |count| vec![Instance { partnerships: vec![groups(1)[1].partnerships[0].clone(); count] }];
    let at = |seconds: i64| now() + jiff::SignedDuration::from_secs(seconds);
    let pairs = [
        (Resource { id: "i".repeat(ID_BYTES_MAX), ..base() }, Resource { id: "i".repeat(ID_BYTES_MAX + 1), ..base() }),
        (
            Resource { name: "ñ".repeat(NAME_CHARS_MAX), ..base() },
            Resource { name: "ñ".repeat(NAME_CHARS_MAX + 1), ..base() },
        ),
        (
            Resource { short_description: "s".repeat(SHORT_DESCRIPTION_CHARS_MAX), ..base() },
            Resource { short_description: "s".repeat(SHORT_DESCRIPTION_CHARS_MAX + 1), ..base() },
        ),
        (
            Resource { description: "a\n".repeat(DESCRIPTION_CHARS_MAX / 2), ..base() },
            Resource { description: "a\n".repeat(DESCRIPTION_CHARS_MAX / 2 + 1), ..base() },
        ),
        (
            Resource { owners: vec!["o".to_owned(); OWNERS_MAX], ..base() },
            Resource { owners: vec!["o".to_owned(); OWNERS_MAX + 1], ..base() },
        ),
        (
            Resource { instances: vec![Instance::default(); INSTANCES_MAX], ..base() },
            Resource { instances: vec![Instance::default(); INSTANCES_MAX + 1], ..base() },
        ),
        (
            Resource { instances: many(PARTNERSHIPS_MAX), ..base() },
            Resource { instances: many(PARTNERSHIPS_MAX + 1), ..base() },
        ),
        (
            Resource { instances: groups(GROUPS_MAX), ..base() },
            Resource { instances: groups(GROUPS_MAX + 1), ..base() },
        ),
        (Resource { version: NUMBER_MAX, ..base() }, Resource { version: NUMBER_MAX + 1, ..base() }),
        (
            Resource { updated_at: at(AHEAD_MAX_SECS), ..base() },
            Resource { updated_at: at(AHEAD_MAX_SECS + 1), ..base() },
        ),
    ];
    for (taken, refused) in pairs {
        assert_eq!(check(taken), Ok(()));
        assert!(check(refused.clone()).is_err(), "{refused:?}");
    }
    assert!(check(Resource { version: 0, ..base() }).is_err());
}

#[test]
fn versions_only_rise_and_outlive_a_lost_database() {
    assert_eq!(next_version(None, now()), now().as_millisecond().unsigned_abs());
    let ahead = now().as_millisecond().unsigned_abs() + 5_000;
    assert_eq!(next_version(Some(ahead), now()), ahead + 1);
    assert!(is_news(2, Some(1)) && !is_news(2, Some(2)) && is_news(1, None));
}

#[test]
fn a_query_is_composed_in_lower_case_and_bounded() {
    let query = ResourceQuery::new("  GPÜ e\u{301} ", Some(Kind::Data)).unwrap();
    assert_eq!(query.text(), "gpü é");
    assert!(ResourceQuery::new(&"x".repeat(QUERY_CHARS_MAX), None).is_ok());
    assert_eq!(
        ResourceQuery::new(&"x".repeat(QUERY_CHARS_MAX + 1), None),
        Err(QueryError::TooLong { got: QUERY_CHARS_MAX + 1 })
    );
    assert!(matches!(ResourceQuery::new("a\u{7}b", None), Err(QueryError::Control { code: 7 })));
}

#[test]
fn a_kind_is_known_by_its_name_and_the_predecessors() {
    for kind in Kind::ALL {
        assert_eq!(Kind::named(kind.name()), Some(kind));
        assert_eq!(Kind::named(&format!("{kind}_resource")), Some(kind));
    }
    assert_eq!(Kind::named("booking"), None);
}

proptest! {
    #[test]
    fn nobody_sees_by_claiming_groups_what_no_partnership_granted(
        claimed in proptest::collection::vec("[a-c*]{1,2}", 0..6),
        granted in proptest::collection::vec("[a-c*]{1,2}", 0..4),
        asks in 2_u8..4,
    ) {
        let own = keys(1).peer_id();
        let partner = keys(2).peer_id();
        let instances = vec![Instance { partnerships: vec![Partnership { peer: partner, groups: granted.clone() }] }];
        let asker = Asker::new(keys(asks).peer_id(), Relation::Partner, claimed.clone());
        let shown = resource(Access::Private, instances).is_shown(&own, &asker);
        let is_granted = granted.iter().any(|group| group == "*" || claimed.contains(group));
        prop_assert_eq!(shown, asks == 2 && is_granted);
    }
}
