//! The one clock and the one source of chance of a daemon.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use protocol::time::{Mono, Now};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

/// The clock that every actor of a daemon reads; cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Real { origin: Instant },
    Ahead { origin: Instant, by: SignedDuration },
    Simulated { origin: Instant, wall: Timestamp },
    Manual(Arc<Hands>),
}

#[derive(Debug)]
struct Hands {
    start: Timestamp,
    mono_nanos: AtomicU64,
    /// How far the wall clock has jumped against the monotonic one.
    jumped_nanos: AtomicI64,
}

impl Clock {
    /// The machine's clock; monotonic time counts from this call.
    #[must_use]
    pub fn real() -> Self {
        Self(Kind::Real { origin: Instant::now() })
    }

    /// For tests of clocks that are wrong: the machine's, its wall time so far ahead of the true one.
    #[must_use]
    pub fn real_ahead(by: SignedDuration) -> Self {
        Self(Kind::Ahead { origin: Instant::now(), by })
    }

    /// For tests on tokio's paused time: both times follow that, the wall clock beginning at `wall`.
    #[must_use]
    pub fn simulated(wall: Timestamp) -> Self {
        Self(Kind::Simulated { origin: Instant::now(), wall })
    }

    /// For tests without a runtime: it stands at `wall` until it is moved by [`Clock::advance`].
    #[must_use]
    pub fn manual(wall: Timestamp) -> Self {
        Self(Kind::Manual(Arc::new(Hands {
            start: wall,
            mono_nanos: AtomicU64::new(0),
            jumped_nanos: AtomicI64::new(0),
        })))
    }

    /// Both times, read once at the top of a handler.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = self.mono();
        let wall = match &self.0 {
            Kind::Real { .. } => Timestamp::now(),
            Kind::Ahead { by, .. } => later(Timestamp::now(), *by),
            Kind::Simulated { wall, .. } => later(*wall, signed(mono.since_start())),
            Kind::Manual(hands) => {
                let jumped = SignedDuration::from_nanos(hands.jumped_nanos.load(Relaxed));
                later(later(hands.start, signed(mono.since_start())), jumped)
            }
        };
        Now { mono, wall }
    }

    /// The time for waiting alone: cheaper than both.
    #[must_use]
    pub fn mono(&self) -> Mono {
        match &self.0 {
            Kind::Real { origin } | Kind::Ahead { origin, .. } | Kind::Simulated { origin, .. } => {
                Mono::at(origin.elapsed())
            }
            Kind::Manual(hands) => Mono::at(Duration::from_nanos(hands.mono_nanos.load(Relaxed))),
        }
    }

    /// Moves a manual clock forward, both times; on any other clock it does nothing.
    pub fn advance(&self, by: Duration) {
        if let Kind::Manual(hands) = &self.0 {
            hands.mono_nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Moves only the wall time of a manual clock, either way; on any other clock it does nothing.
    pub fn jump(&self, by: SignedDuration) {
        if let Kind::Manual(hands) = &self.0 {
            hands.jumped_nanos.fetch_add(i64::try_from(by.as_nanos()).unwrap_or(0), Relaxed);
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// A clock beyond the end of the calendar stands at that end.
fn later(wall: Timestamp, by: SignedDuration) -> Timestamp {
    wall.checked_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// The one seeded source of chance: every actor has its own stream of it, named by its path.
#[derive(Clone)]
pub struct Chance([u8; 32]);

impl Chance {
    /// From the operating system: nobody else can foresee it.
    #[must_use]
    pub fn unforeseen() -> Self {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        Self(seed)
    }

    /// The same seed gives the same streams: for tests, which print it.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let mut bytes = [0; 32];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The stream of one life of one actor; another life or another path has an unrelated one.
    #[must_use]
    pub fn fork(&self, path: &str, incarnation: u64) -> StdRng {
        let mut seed = [0; 32];
        StdRng::seed_from_u64(fingerprint(path, incarnation)).fill_bytes(&mut seed);
        for (mine, common) in seed.iter_mut().zip(self.0) {
            *mine ^= common;
        }
        StdRng::from_seed(seed)
    }
}

impl fmt::Debug for Chance {
    /// The seed foretells every nonce, so it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chance")
    }
}

/// FNV-1a, because it is the same in every build: a printed seed must replay.
fn fingerprint(path: &str, incarnation: u64) -> u64 {
    path.bytes()
        .chain(incarnation.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_its_wall_may_jump() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Now { mono: Mono::ZERO, wall: Timestamp::UNIX_EPOCH });
        clock.advance(Duration::from_secs(5));
        clock.jump(SignedDuration::from_secs(-3));
        let now = clock.now();
        assert_eq!((now.mono, now.wall.as_second()), (Mono::from_secs(5), 2));
        clock.jump(SignedDuration::MAX);
        assert_eq!(clock.mono(), Mono::from_secs(5));
    }

    #[test]
    fn the_same_seed_and_path_give_the_same_stream_and_every_other_one_a_different_one() {
        let chance = Chance::seeded(7);
        let draw = |chance: &Chance, path, life| chance.fork(path, life).next_u64();
        assert_eq!(draw(&chance, "root/pool", 1), draw(&Chance::seeded(7), "root/pool", 1));
        assert_ne!(draw(&chance, "root/pool", 1), draw(&chance, "root/pool", 2));
        assert_ne!(draw(&chance, "root/pool", 1), draw(&chance, "root/pooh", 1));
        assert_ne!(draw(&chance, "root/pool", 1), draw(&Chance::seeded(8), "root/pool", 1));
    }
}
