//! When what waits for a partner is sent: one lane per partner, in order, again and again with growing pauses.
//!
//! The rows themselves are in the outbox, on the disk. Here is only which partner is due: a lane has something to send, is
//! being sent from, or pauses after a failure. A partner that is heard of is tried at once, whatever its pause.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use libp2p_identity::PeerId;
use rand::{Rng, RngExt};

use crate::time::Mono;

/// Partners that are sent to at the same time: each is a stream and a batch of rows in memory.
pub const RUNNING_MAX: usize = 16;

/// Partners with something to send. The outbox has no more rows, and a federation no more partners of one member.
pub const LANES_MAX: usize = 10_000;

/// Pause after a first failure.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause: a partner that is back is told within this even if nobody heard of it.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is not delivered within this is given up, and its fate can be read.
pub const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Share of a pause that is left to chance, so that a partner that comes back is not met by everybody at once.
const JITTER: f64 = 0.2;

/// What became of one turn of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing was left when it looked.
    Emptied,
    /// The partner could not be reached, or said "later" for so long at least.
    Failed {
        /// Zero where it said nothing.
        not_before: Duration,
    },
    /// The partner takes no more for so long, because of how much it took. It is there, and nothing failed.
    Wait(Duration),
}

#[derive(Debug)]
struct Lane {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Something came while it was being sent from.
    has_more: bool,
    /// The partner itself said how long to wait: to hear of it does not shorten that.
    is_told: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Due(Mono),
    Running,
}

/// Every lane with something to send.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<PeerId, Lane>,
    due: BTreeSet<(Mono, PeerId)>,
    running: usize,
}

impl Lanes {
    /// Something waits for this partner. A pause that it has goes on.
    ///
    /// Tells whether it is taken: past [`LANES_MAX`] it waits in the outbox until a lane is free and it is named again.
    pub fn grew(&mut self, partner: PeerId, now: Mono) -> bool {
        if let Some(lane) = self.lanes.get_mut(&partner) {
            lane.has_more |= lane.state == State::Running;
            return true;
        }
        if self.lanes.len() >= LANES_MAX {
            return false;
        }
        self.lanes.insert(partner, Lane { state: State::Due(now), failures: 0, has_more: false, is_told: false });
        self.due.insert((now, partner));
        true
    }

    /// The partner was heard of: what waits for it is due now, unless the partner told us to wait.
    pub fn heard_of(&mut self, partner: &PeerId, now: Mono) {
        let Some(lane) = self.lanes.get_mut(partner) else { return };
        if let State::Due(at) = lane.state
            && at > now
            && !lane.is_told
        {
            self.due.remove(&(at, *partner));
            self.due.insert((now, *partner));
            lane.state = State::Due(now);
        }
    }

    /// A partner whose turn it is, and which is running from here on; nothing while [`RUNNING_MAX`] are.
    pub fn next_turn(&mut self, now: Mono) -> Option<PeerId> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        let (at, partner) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.remove(&(at, partner));
        let lane = self.lanes.get_mut(&partner)?;
        lane.state = State::Running;
        (lane.has_more, lane.is_told) = (false, false);
        self.running += 1;
        Some(partner)
    }

    /// A turn ended. A lane that grew meanwhile is due again; an emptied one is gone.
    pub fn ended(&mut self, partner: &PeerId, turn: Turn, now: Mono, chance: &mut impl Rng) {
        let Some(lane) = self.lanes.get_mut(partner).filter(|lane| lane.state == State::Running) else { return };
        self.running -= 1;
        let due = match turn {
            Turn::Emptied if lane.has_more => {
                lane.failures = 0;
                now
            }
            Turn::Emptied => {
                self.lanes.remove(partner);
                return;
            }
            Turn::Failed { not_before } => {
                let pause = pause_after(lane.failures, chance).max(not_before);
                lane.failures = lane.failures.saturating_add(1);
                now + pause
            }
            Turn::Wait(wait) => {
                (lane.failures, lane.is_told) = (0, true);
                // Later by chance, for others may have been told the same.
                now + wait.max(PAUSE_FIRST).mul_f64(1.0 + JITTER * chance.random::<f64>())
            }
        };
        lane.state = State::Due(due);
        self.due.insert((due, *partner));
    }

    /// The partner is not to be sent to any more.
    pub fn forget(&mut self, partner: &PeerId) {
        let Some(lane) = self.lanes.remove(partner) else { return };
        match lane.state {
            State::Due(at) => drop(self.due.remove(&(at, *partner))),
            State::Running => self.running -= 1,
        }
    }

    /// When the next turn is due; nothing while no lane waits, or none may run.
    #[must_use]
    pub fn next_due(&self) -> Option<Mono> {
        if self.running >= RUNNING_MAX {
            return None;
        }
        self.due.first().map(|(at, _)| *at)
    }

    /// Partners with something to send.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Nothing waits for anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

/// The pause after a failure that had `before` before it in a row.
pub(crate) fn pause_after(before: u32, chance: &mut impl Rng) -> Duration {
    let factor = 2_u32.checked_pow(before).unwrap_or(u32::MAX);
    let longest = PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX);
    longest.mul_f64(1.0 - JITTER * chance.random::<f64>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use crate::identity::Keys;

    fn peer(n: u16) -> PeerId {
        let mut seed = [0; 32];
        seed[..2].copy_from_slice(&n.to_be_bytes());
        Keys::from_seed(seed).peer_id()
    }

    fn at(seconds: u64) -> Mono {
        Mono::default() + Duration::from_secs(seconds)
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    const FAILED: Turn = Turn::Failed { not_before: Duration::ZERO };

    #[test]
    fn a_partner_has_one_turn_at_a_time_and_none_without_news() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.next_turn(at(0)), None);
        assert!(lanes.grew(peer(1), at(0)));
        assert_eq!(lanes.next_turn(at(0)), Some(peer(1)));
        assert!(lanes.grew(peer(1), at(0)));
        assert_eq!(lanes.next_turn(at(0)), None, "it is running");
        lanes.ended(&peer(1), Turn::Emptied, at(1), &mut rng());
        assert_eq!(lanes.next_turn(at(1)), Some(peer(1)), "it grew meanwhile");
        lanes.ended(&peer(1), Turn::Emptied, at(2), &mut rng());
        assert!(lanes.is_empty() && lanes.next_due().is_none());
    }

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_after_a_success() {
        let mut lanes = Lanes::default();
        let mut rng = rng();
        lanes.grew(peer(1), at(0));
        let mut pauses = Vec::new();
        let mut now = at(0);
        for _ in 0..9 {
            assert_eq!(lanes.next_turn(now), Some(peer(1)));
            lanes.ended(&peer(1), FAILED, now, &mut rng);
            let due = lanes.next_due().unwrap();
            pauses.push(due.since(now).as_secs_f64());
            now = due;
        }
        for (pause, longest) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
            assert!((longest * 0.8..=longest).contains(pause), "{pause} of {longest}");
        }
        assert_eq!(lanes.next_turn(now), Some(peer(1)));
        lanes.grew(peer(1), now);
        lanes.ended(&peer(1), Turn::Emptied, now, &mut rng);
        assert_eq!(lanes.next_turn(now), Some(peer(1)));
        lanes.ended(&peer(1), FAILED, now, &mut rng);
        assert!(lanes.next_due().unwrap().since(now) <= PAUSE_FIRST);
    }

    #[test]
    fn a_partner_that_is_heard_of_is_due_at_once_and_one_that_says_later_is_not() {
        let mut lanes = Lanes::default();
        lanes.grew(peer(1), at(0));
        lanes.next_turn(at(0));
        lanes.ended(&peer(1), Turn::Failed { not_before: Duration::from_secs(90) }, at(0), &mut rng());
        assert_eq!(lanes.next_due(), Some(at(90)));
        lanes.grew(peer(1), at(1));
        assert_eq!(lanes.next_turn(at(1)), None, "news do not end a pause");
        lanes.heard_of(&peer(1), at(2));
        lanes.heard_of(&peer(2), at(2));
        assert_eq!(lanes.next_turn(at(2)), Some(peer(1)));
    }

    #[test]
    fn a_partner_that_says_how_long_to_wait_is_waited_for_and_has_not_failed() {
        let mut lanes = Lanes::default();
        let mut rng = rng();
        lanes.grew(peer(1), at(0));
        lanes.next_turn(at(0));
        lanes.ended(&peer(1), FAILED, at(0), &mut rng);
        assert_eq!(lanes.next_turn(at(1)), Some(peer(1)));
        lanes.ended(&peer(1), Turn::Wait(Duration::from_secs(30)), at(1), &mut rng);
        let due = lanes.next_due().unwrap();
        assert!((at(31)..=at(37)).contains(&due), "{due:?}");
        lanes.heard_of(&peer(1), at(2));
        assert_eq!(lanes.next_turn(at(30)), None, "to hear of it does not end a wait that it asked for");
        assert_eq!(lanes.next_turn(due), Some(peer(1)));
        // The next failure is a first one, and a wait of nothing is none.
        lanes.ended(&peer(1), FAILED, due, &mut rng);
        assert!(lanes.next_due().unwrap().since(due) <= PAUSE_FIRST);
        let again = lanes.next_due().unwrap();
        assert_eq!(lanes.next_turn(again), Some(peer(1)));
        lanes.ended(&peer(1), Turn::Wait(Duration::ZERO), again, &mut rng);
        assert!(lanes.next_due().unwrap().since(again) >= PAUSE_FIRST);
    }

    #[test]
    fn so_many_run_at_once_and_no_more() {
        let mut lanes = Lanes::default();
        for n in 0..=RUNNING_MAX {
            lanes.grew(peer(u16::try_from(n).unwrap()), at(0));
        }
        let running: Vec<PeerId> = std::iter::from_fn(|| lanes.next_turn(at(0))).collect();
        assert_eq!(running.len(), RUNNING_MAX);
        assert_eq!(lanes.next_due(), None, "nobody may run until one has ended");
        lanes.ended(&running[0], Turn::Emptied, at(0), &mut rng());
        assert!(lanes.next_turn(at(0)).is_some());
    }

    #[test]
    fn one_lane_more_than_there_may_be_is_left_in_the_outbox() {
        let mut lanes = Lanes::default();
        for n in 0..LANES_MAX {
            assert!(lanes.grew(peer(u16::try_from(n).unwrap()), at(0)));
        }
        let one_more = peer(u16::try_from(LANES_MAX).unwrap());
        assert!(!lanes.grew(one_more, at(0)));
        lanes.forget(&peer(0));
        assert!(lanes.grew(one_more, at(0)));
    }

    #[test]
    fn a_forgotten_lane_leaves_nothing_behind() {
        let mut lanes = Lanes::default();
        lanes.grew(peer(1), at(0));
        lanes.grew(peer(2), at(0));
        let running = lanes.next_turn(at(0)).unwrap();
        lanes.forget(&peer(1));
        lanes.forget(&peer(2));
        lanes.ended(&running, FAILED, at(0), &mut rng());
        assert!(lanes.is_empty() && lanes.running == 0 && lanes.due.is_empty());
    }
}
