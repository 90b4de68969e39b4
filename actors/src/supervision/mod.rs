//! Supervision: how actors are started, reached, watched, restarted and stopped.
//!
//! An actor is a plain [`ractor::Actor`] whose message type is an [`Envelope`] of its own. It is started by a
//! [`ChildSpec`], never by ractor's `spawn`; then everything around its handlers is done for it: its [`Address`] is
//! pointed at it, its message counts as in flight until the handler has ended, its times, errors and lives are
//! written where [`Tree::read`] finds them, and an injected fault strikes it.
//!
//! - [`Address`] is what neighbours hold. It survives restarts, refuses by [`Class`] when the mailbox fills
//!   ([`Shed::Busy`]) and while nobody lives there ([`Shed::Away`]). Messages that an actor had in flight when it died
//!   are lost, and no longer counted.
//! - [`Seat`] is what an actor is given for one life: its time, its chance, its timers, its replies, its children.
//! - [`Children`] is the supervising part of an actor that has some; [`Supervisor`] is an actor that is nothing else,
//!   and [`Root`] the whole tree.
//! - A failure is an `Err` or a panic, in `pre_start` too. A failed child pauses, longer each time, and lives again
//!   only when its last life is gone: its state dropped, its own children gone, every [`Hold`] dropped. A spent budget
//!   goes up, or is reported when the child is [`ChildSpec::forgotten_when_spent`].
//! - An actor that ends, or fails by a child, stops its children in reverse order; one that fails by itself has them
//!   killed. Either way they are gone before it lives again.
//!
//! # An actor, whole
//!
//! ```
//! # use std::time::Duration;
//! # use actors::supervision::{
//! #     Address, Chance, ChildSpec, Children, Class, Clock, Due, Ended, Envelope, Outcome, Path, Reply, Root, Seat,
//! #     Settings, Timer, Tree,
//! # };
//! # use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
//! # struct Member;
//! # impl Actor for Member {
//! #     type Msg = Envelope<()>;
//! #     type State = Seat<()>;
//! #     type Arguments = Seat<()>;
//! #     async fn pre_start(&self, _: ActorRef<Envelope<()>>, seat: Seat<()>) -> Result<Seat<()>, ActorProcessingErr> {
//! #         Ok(seat)
//! #     }
//! # }
//! /// Twice what a pool aims for.
//! const MEMBERS_MAX: usize = 16;
//!
//! struct Pool;
//!
//! struct Args {
//!     seat: Seat<Msg>,
//!     tick_every: Duration,
//! }
//!
//! struct State {
//!     seat: Seat<Msg>,
//!     tick_every: Duration,
//!     ticks: u64,
//!     timer: Timer,
//!     members: Children,
//! }
//!
//! enum Msg {
//!     Tick,
//!     Join { name: String },
//!     Count { reply: Reply<usize> },
//!     RestartDue(Due),
//! }
//!
//! impl Actor for Pool {
//!     type Msg = Envelope<Msg>;
//!     type State = State;
//!     type Arguments = Args;
//!
//!     async fn pre_start(&self, _: ActorRef<Self::Msg>, args: Args) -> Result<State, ActorProcessingErr> {
//!         let Args { seat, tick_every } = args;
//!         let members = seat.children(MEMBERS_MAX, Msg::RestartDue);
//!         let timer = seat.after(tick_every, Msg::Tick);
//!         Ok(State { seat, tick_every, ticks: 0, timer, members })
//!     }
//!
//!     async fn handle(
//!         &self,
//!         _: ActorRef<Self::Msg>,
//!         envelope: Envelope<Msg>,
//!         state: &mut State,
//!     ) -> Result<(), ActorProcessingErr> {
//!         match envelope.open() {
//!             Msg::Tick => state.tick(),
//!             Msg::Join { name } => state.join(&name).await?,
//!             Msg::Count { reply } => reply.send(state.members.len()),
//!             Msg::RestartDue(due) => {
//!                 let outcome = state.members.restart_due(due).await?;
//!                 state.became(outcome);
//!             }
//!         }
//!         Ok(())
//!     }
//!
//!     // Only for an actor with children; ractor's own would stop it when a child ends.
//!     async fn handle_supervisor_evt(
//!         &self,
//!         _: ActorRef<Self::Msg>,
//!         event: SupervisionEvent,
//!         state: &mut State,
//!     ) -> Result<(), ActorProcessingErr> {
//!         let outcome = state.members.on_event(event).await?;
//!         state.became(outcome);
//!         Ok(())
//!     }
//!
//!     async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut State) -> Result<(), ActorProcessingErr> {
//!         state.members.stop_all().await;
//!         Ok(())
//!     }
//! }
//!
//! impl State {
//!     fn tick(&mut self) {
//!         self.ticks += 1;
//!         // Re-armed last, so two ticks never queue.
//!         self.timer = self.seat.after(self.tick_every, Msg::Tick);
//!     }
//!
//!     async fn join(&mut self, name: &str) -> Result<(), ActorProcessingErr> {
//!         let address: Address<()> = self.seat.address(format_args!("member/{name}"), "member", 64);
//!         let spec = ChildSpec::new(&address, Member, |seat| seat).transient().forgotten_when_spent();
//!         self.members.start_child(spec).await?;
//!         Ok(())
//!     }
//!
//!     fn became(&mut self, outcome: Option<Outcome>) {
//!         if let Some(Outcome::Forgotten { path, cause }) = outcome {
//!             tracing::warn!(%path, cause, "member lost");
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let tree = Tree::new(Clock::real(), Chance::unforeseen(), Settings::default());
//! let pool: Address<Msg> = tree.address(Path::root().child("pool"), "pool", 1024);
//! let spec = ChildSpec::new(&pool, Pool, |seat| Args { seat, tick_every: Duration::from_secs(1) });
//! let root = Root::start(&tree, vec![spec]).await.expect("a pool that starts");
//!
//! pool.tell(Class::Control, Msg::Join { name: "paris".into() }).expect("a pool that is there");
//! let count = pool.ask(Class::Control, |reply| Msg::Count { reply }, Duration::from_secs(1)).await;
//! assert_eq!(count, Ok(1));
//! assert_eq!(tree.read()[2].name, "root/pool/member/paris");
//!
//! assert_eq!(root.stop().await, Ended::Stopped);
//! # }
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

mod address;
mod children;
mod clock;
mod histogram;
mod life;
mod mailbox;
mod path;
mod pulse;
pub mod supervisor;
mod vitals;

pub use address::{Address, Class, Envelope, Reply, Shed};
pub use children::{ChildSpec, Children, Due, Failure, Outcome, StartError};
pub use clock::{Chance, Clock};
pub use life::{Hold, Seat, Timer};
pub use path::Path;
pub use protocol::restarts;
pub use pulse::Pulse;
pub use supervisor::{Ended, Root, Supervisor};
pub use vitals::Tree;

/// How a tree is supervised, where a child has no rule of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Most restarts of one child within [`Settings::restarts_within`].
    pub restarts_max: u32,
    /// The stretch in which restarts are counted.
    #[serde(with = "protocol::time::text")]
    pub restarts_within: Duration,
    /// Pause before the first restart.
    #[serde(with = "protocol::time::text")]
    pub pause_first: Duration,
    /// Longest pause before a restart; each is twice the one before.
    #[serde(with = "protocol::time::text")]
    pub pause_max: Duration,
    /// An actor that is longer in one handler is shown as stuck.
    #[serde(with = "protocol::time::text")]
    pub stuck_after: Duration,
    /// How long a `pre_start` may take before it has failed.
    #[serde(with = "protocol::time::text")]
    pub start_within: Duration,
    /// How long an actor may take to stop before it is killed.
    #[serde(with = "protocol::time::text")]
    pub stop_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let restarts = restarts::Settings::default();
        Self {
            restarts_max: restarts.restarts_max,
            restarts_within: restarts.within,
            pause_first: restarts.pause_first,
            pause_max: restarts.pause_max,
            stuck_after: Duration::from_secs(1),
            start_within: Duration::from_secs(10),
            stop_within: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// The budget of a child without one of its own.
    #[must_use]
    pub fn restarts(&self) -> restarts::Settings {
        restarts::Settings {
            restarts_max: self.restarts_max,
            within: self.restarts_within,
            pause_first: self.pause_first,
            pause_max: self.pause_max,
            ..restarts::Settings::default()
        }
    }
}
