//! The pulse of a tree: whether the actors that it cannot do without still end their handlers. Read and poked from outside,
//! so that a stuck one delays nobody.

use protocol::watchdog::{Sign, Watch};

use super::{path::Path, vitals::Tree};

/// Feels some actors of one tree.
#[derive(Debug)]
pub struct Pulse {
    tree: Tree,
    watched: Vec<Path>,
    watch: Watch<Path>,
}

impl Pulse {
    /// Of these actors; those that are never started are left out.
    #[must_use]
    pub fn of(tree: &Tree, watched: Vec<Path>) -> Self {
        Self { tree: tree.clone(), watched, watch: Watch::new() }
    }

    /// Names those that ended no handler since the beat before, and gives each other one an empty message to end.
    pub fn beat(&mut self) -> Vec<Path> {
        let listed = |path: &Path| Some((path.clone(), self.tree.vitals(path)?.sign()));
        let signs: Vec<(Path, Sign)> = self.watched.iter().filter_map(listed).collect();
        let beat = self.watch.beat(&signs);
        beat.ask.iter().filter_map(|path| self.tree.vitals(path)).for_each(|vitals| vitals.poke());
        beat.silent
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use ractor::{Actor, ActorProcessingErr, ActorRef};

    use super::*;
    use crate::{
        handle::Fault,
        supervision::{Chance, ChildSpec, Clock, Ended, Envelope, Root, Seat, Settings},
    };

    struct Idle;

    impl Actor for Idle {
        type Msg = Envelope<()>;
        type State = Seat<()>;
        type Arguments = Seat<()>;

        async fn pre_start(&self, _: ActorRef<Envelope<()>>, seat: Seat<()>) -> Result<Seat<()>, ActorProcessingErr> {
            Ok(seat)
        }
    }

    /// Lets all that is ready run: time is paused, so it passes only when everybody waits.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_actor_that_ends_no_handler_is_silent_and_the_root_is_watched_too() {
        let tree = Tree::new(Clock::real(), Chance::unforeseen(), Settings::default());
        let paths = ["stuck", "idle"].map(|name| Path::root().child(name));
        let specs = paths.iter().map(|path| {
            let address = tree.address::<()>(path.clone(), "idle", 8);
            ChildSpec::new(&address, Idle, |seat| seat)
        });
        let root = Root::start(&tree, specs.collect()).await.unwrap();
        let off = Path::root().child("off");
        let mut pulse = Pulse::of(&tree, vec![Path::root(), paths[0].clone(), paths[1].clone(), off]);
        for _ in 0..3 {
            assert_eq!(pulse.beat(), Vec::new(), "all answer, and one that was never started is not missed");
            settle().await;
        }
        tree.inject(paths[0].as_str(), Fault::Stall(Duration::from_secs(60))).unwrap();
        settle().await;
        pulse.beat();
        settle().await;
        for _ in 0..20 {
            assert_eq!(pulse.beat(), vec![paths[0].clone()]);
            settle().await;
        }
        let stuck = tree.read().into_iter().find(|actor| actor.name == paths[0].as_str()).unwrap();
        assert!(stuck.in_flight <= 2, "what it is asked does not pile up: {stuck:?}");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(pulse.beat(), Vec::new(), "it answers again");
        assert_eq!(root.stop().await, Ended::Stopped);
    }
}
