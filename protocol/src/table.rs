//! Kademlia's routing table: how many of one subnet may stand in it.
//!
//! Keys cost nothing, addresses do: whoever wants to surround a key needs many subnets, and not one with many keys.

use crate::addr::Subnet;

/// Peers of one subnet in the whole table.
pub const PER_SUBNET_MAX: usize = 3;

/// Peers of one subnet in one bucket of it.
pub const PER_BUCKET_MAX: usize = 2;

/// Where a peer of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its subnet: that of its connection, or of its address when there is none.
    pub subnet: Subnet,
    /// It stands in the bucket that the newcomer would stand in.
    pub is_same_bucket: bool,
}

/// Whether a newcomer from this subnet may enter beside these others.
#[must_use]
pub fn has_place(subnet: Subnet, others: impl IntoIterator<Item = Place>) -> bool {
    let (mut all, mut bucket) = (0, 0);
    for place in others.into_iter().filter(|place| place.subnet == subnet) {
        all += 1;
        bucket += usize::from(place.is_same_bucket);
    }
    all < PER_SUBNET_MAX && bucket < PER_BUCKET_MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Subnet = Subnet::V4([192, 0, 2]);

    fn places(same_bucket: usize, other_buckets: usize) -> Vec<Place> {
        let place = |is_same_bucket| Place { subnet: HERE, is_same_bucket };
        let same = std::iter::repeat_n(place(true), same_bucket);
        same.chain(std::iter::repeat_n(place(false), other_buckets)).collect()
    }

    #[test]
    fn three_of_a_subnet_may_enter_and_two_of_them_one_bucket() {
        let check =
            |same, other, expected| assert_eq!(has_place(HERE, places(same, other)), expected, "{same} {other}");
        check(0, 0, true);
        check(1, 0, true);
        check(2, 0, false);
        check(0, 2, true);
        check(0, 3, false);
        check(1, 1, true);
        check(1, 2, false);
    }

    #[test]
    fn g16_ipv6_subnets_are_counted_like_others() {
        let [one, other] = [Subnet::V6([0x20, 1, 0xd, 0xb8, 0, 7]), Subnet::V6([0x20, 1, 0xd, 0xb8, 0, 8])];
        let full = [Place { subnet: one, is_same_bucket: true }; PER_BUCKET_MAX];
        assert!(!has_place(one, full));
        assert!(has_place(other, full));
    }

    proptest! {
        #[test]
        fn whoever_comes_no_subnet_has_more_than_its_places(comers in proptest::collection::vec((0u8..4, 0u8..4), 0..60)) {
            let mut table: Vec<(Subnet, u8)> = Vec::new();
            for (net, bucket) in comers {
                let subnet = Subnet::V4([10, 0, net]);
                let others = table.iter().map(|(subnet, at)| Place { subnet: *subnet, is_same_bucket: *at == bucket });
                if has_place(subnet, others) {
                    table.push((subnet, bucket));
                }
            }
            for net in 0..4 {
                let of_net = || table.iter().filter(|(subnet, _)| *subnet == Subnet::V4([10, 0, net]));
                prop_assert!(of_net().count() <= PER_SUBNET_MAX);
                for bucket in 0..4 {
                    prop_assert!(of_net().filter(|(_, at)| *at == bucket).count() <= PER_BUCKET_MAX);
                }
            }
        }
    }
}
