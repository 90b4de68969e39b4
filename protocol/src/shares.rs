//! Who brings how much in a minute: each author has a share, and all together have one.

use std::collections::{BTreeSet, HashMap};

use libp2p_identity::PeerId;

use crate::{
    behaviour::{LIMIT_MAX, WINDOW, Window},
    time::Mono,
};

/// Authors who are counted; beyond them a new one is heard when another one was silent for a minute.
const AUTHORS_MAX: usize = 4_096;

/// How much each author and all together brought in the last minute.
#[derive(Debug)]
pub(crate) struct Shares {
    per_author: u32,
    in_all: u32,
    authors: HashMap<PeerId, (Window, Mono)>,
    by_age: BTreeSet<(Mono, PeerId)>,
    all: Window,
}

impl Shares {
    /// Nothing brought yet; both limits times the profile's `factor`.
    pub(crate) fn new(per_author: u32, in_all: u32, factor: u32) -> Self {
        let limit = |limit: u32| limit.saturating_mul(factor).min(LIMIT_MAX);
        Self {
            per_author: limit(per_author),
            in_all: limit(in_all),
            authors: HashMap::new(),
            by_age: BTreeSet::new(),
            all: Window::default(),
        }
    }

    /// Counts one of this author; seconds to wait when it is one too many.
    pub(crate) fn count(&mut self, author: PeerId, now: Mono) -> Result<(), u64> {
        if !self.authors.contains_key(&author) && self.authors.len() >= AUTHORS_MAX {
            let is_idle = |(came, _): &(Mono, PeerId)| now.since(*came) >= WINDOW;
            let oldest = self.by_age.first().copied().filter(is_idle);
            let (_, oldest) = oldest.ok_or(WINDOW.as_secs())?;
            self.by_age.pop_first();
            self.authors.remove(&oldest);
        }
        let (window, came) = self.authors.entry(author).or_default();
        self.by_age.remove(&(*came, author));
        self.by_age.insert((now, author));
        *came = now;
        // The author's own share first: one that comes and comes does not use up what is there for all.
        if window.count(now) >= self.per_author {
            return Err(window.secs_until_below(self.per_author, now));
        }
        if self.all.count(now) >= self.in_all {
            return Err(self.all.secs_until_below(self.in_all, now));
        }
        window.add();
        self.all.add();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    #[test]
    fn one_over_an_authors_share_waits_and_takes_nothing_from_another() {
        let mut shares = Shares::new(3, 10, 2);
        for _ in 0..6 {
            assert_eq!(shares.count(peer(1), Mono::ZERO), Ok(()));
        }
        assert_eq!(shares.count(peer(1), Mono::ZERO), Err(60));
        assert_eq!(shares.count(peer(1), Mono::from_secs(59)), Err(1));
        assert_eq!(shares.count(peer(2), Mono::from_secs(59)), Ok(()));
        assert_eq!(shares.count(peer(1), Mono::from_secs(60)), Ok(()));
    }

    #[test]
    fn one_over_what_is_there_for_all_waits_whoever_it_is() {
        let mut shares = Shares::new(2, 4, 1);
        for n in 0..4 {
            assert_eq!(shares.count(peer(n), Mono::ZERO), Ok(()));
        }
        assert_eq!(shares.count(peer(4), Mono::ZERO), Err(60));
        assert_eq!(shares.count(peer(4), Mono::from_secs(60)), Ok(()));
    }

    #[test]
    fn authors_are_bounded_and_one_that_was_silent_makes_room() {
        let mut shares = Shares::new(1, u32::MAX, u32::MAX);
        for n in 0..AUTHORS_MAX as u32 {
            assert_eq!(shares.count(peer(n), Mono::ZERO), Ok(()));
        }
        assert_eq!(shares.count(peer(100_000), Mono::ZERO), Err(60));
        assert_eq!((shares.authors.len(), shares.by_age.len()), (AUTHORS_MAX, AUTHORS_MAX));
        assert_eq!(shares.count(peer(100_000), Mono::from_secs(60)), Ok(()));
        assert_eq!((shares.authors.len(), shares.by_age.len()), (AUTHORS_MAX, AUTHORS_MAX));
    }
}
