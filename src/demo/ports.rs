//! Ports that nobody listens on.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use rand::{Rng, RngExt};

/// Where to look: below the range from which Linux takes the local ports of outgoing connections, so that a member that
/// was killed finds its port free when it is started again.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Tries for one port before it is said that there is none: with half of the range taken, 64 fail once in 2^64.
const TRIES_MAX: u32 = 64;

/// `count` different ports that are free on loopback now, each held until its listener is dropped.
///
/// # Errors
/// When none is found in [`TRIES_MAX`] tries.
pub(crate) fn free(count: usize, chance: &mut impl Rng) -> io::Result<Vec<TcpListener>> {
    (0..count).map(|_| one(chance)).collect()
}

fn one(chance: &mut impl Rng) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES_MAX {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, chance.random_range(RANGE))) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn all_are_different_and_below_the_range_of_outgoing_connections() {
        let mut chance = StdRng::seed_from_u64(1);
        let held = free(14, &mut chance).unwrap();
        let ports: BTreeSet<u16> = held.iter().map(|held| held.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 14);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
    }

    #[test]
    fn a_taken_port_is_passed_over() {
        let first = free(1, &mut StdRng::seed_from_u64(2)).unwrap();
        let second = free(1, &mut StdRng::seed_from_u64(2)).unwrap();
        assert_ne!(first[0].local_addr().unwrap(), second[0].local_addr().unwrap());
    }
}
