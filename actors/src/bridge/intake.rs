//! Orders on their way in: read, handed over, and judged.

use std::time::Duration;

use protocol::{
    bus::{self, Author, VerbIn},
    signed::SignedError,
};

use super::{Tally, link::Link};
use crate::{
    sharing::{self, Ordered, Verdict},
    supervision::Class,
};

/// Orders that are handed over at once.
pub(super) const BATCH_MAX: usize = 64;

/// How long `sharing` may take for a batch, its writing to the disk included. Past it the batch comes again, and is known.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What is to be told to the bus about one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is dealt with.
    Over,
    /// It never will be; it must not come again.
    Refused,
    /// It comes again.
    Again,
}

/// One message as it came.
pub(super) struct Arrived<'a> {
    /// What it is known by when it comes again.
    pub(super) id: String,
    /// On which subject.
    pub(super) subject: &'a str,
    /// What it holds.
    pub(super) payload: &'a [u8],
}

/// What a message is before it is judged.
enum Held {
    Order,
    Settled(Fate),
}

/// Reads messages of one verb, hands the orders among them over as one batch, and says what becomes of each. The tally is
/// reported when the bus has been told: a bridge that dies between the two has to be told of no order again.
pub(super) async fn take(link: &Link, verb: VerbIn, arrived: &[Arrived<'_>]) -> (Vec<Fate>, Tally) {
    let mut tally = Tally::default();
    let mut orders = Vec::new();
    let held: Vec<Held> = arrived.iter().map(|message| read(link, verb, message, &mut tally, &mut orders)).collect();
    let count = orders.len();
    let verdicts = hand_over(link, orders).await.unwrap_or_else(|| vec![Verdict::NotYet(String::new()); count]);
    let mut verdicts = verdicts.into_iter();
    let fates = held.into_iter().zip(arrived).map(|(held, message)| match held {
        Held::Settled(fate) => fate,
        // An answer that is short says nothing of the rest.
        Held::Order => settle(message, verdicts.next().unwrap_or(Verdict::NotYet(String::new())), &mut tally),
    });
    (fates.collect(), tally)
}

fn read(link: &Link, verb: VerbIn, message: &Arrived<'_>, tally: &mut Tally, orders: &mut Vec<Ordered>) -> Held {
    let own = link.context.own.peer_id;
    match bus::author(message.payload, &own, link.context.now().wall) {
        Ok(Author::Application) => {}
        Ok(Author::Ourselves | Author::Member(_)) => {
            tally.own += 1;
            return Held::Settled(Fate::Over);
        }
        Err(error) => {
            if matches!(error, SignedError::BadSignature) {
                link.context.stats.bus_forged.inc();
            }
            return refuse(message, tally, format!("its origin: {error}"));
        }
    }
    match bus::read(verb, message.payload) {
        Ok(order) => {
            orders.push(Ordered { id: message.id.clone(), order });
            Held::Order
        }
        Err(error) => refuse(message, tally, error.to_string()),
    }
}

fn refuse(message: &Arrived<'_>, tally: &mut Tally, why: String) -> Held {
    tally.refused += 1;
    tally.refusal = Some((message.subject.to_owned(), why));
    Held::Settled(Fate::Refused)
}

fn settle(message: &Arrived<'_>, verdict: Verdict, tally: &mut Tally) -> Fate {
    match verdict {
        Verdict::Done => {
            tally.taken += 1;
            Fate::Over
        }
        Verdict::Repeated => {
            tally.repeated += 1;
            Fate::Over
        }
        Verdict::NotYet(_) => {
            tally.put_off += 1;
            Fate::Again
        }
        Verdict::Refused(why) => {
            tally.refused += 1;
            tally.refusal = Some((message.subject.to_owned(), why));
            Fate::Refused
        }
    }
}

/// Nothing when `sharing` is busy, away or late: whatever it did, it knows when it is asked again.
async fn hand_over(link: &Link, orders: Vec<Ordered>) -> Option<Vec<Verdict>> {
    if orders.is_empty() {
        return Some(Vec::new());
    }
    let ask = |reply| sharing::Msg::Ordered { orders, reply };
    link.context.addresses.sharing.ask(Class::Control, ask, ANSWER_WITHIN).await.ok()
}
