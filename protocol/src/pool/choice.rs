//! Which candidates are worth a place: a score from one probe, and chance weighted by room.

use std::{collections::BTreeSet, time::Duration};

use libp2p_identity::PeerId;
use rand::{Rng, RngExt};

use crate::addr::Subnet;

/// What one probe says of a candidate, 0 to 100: half for its latency, half for its room. Without an answer body there
/// is half of the latency's part.
#[must_use]
pub fn quick_score(rtt: Duration, fill_rate: Option<f64>) -> f64 {
    /// A round trip this long is worth nothing.
    const WORST_SECS: f64 = 4.0;
    let latency = (1.0 - rtt.as_secs_f64() / WORST_SECS).clamp(0.0, 1.0);
    match fill_rate {
        Some(fill_rate) => 50.0 * latency + 50.0 * (1.0 - fill_rate.clamp(0.0, 1.0)),
        None => 25.0 * latency,
    }
}

/// A candidate to choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// The indexer.
    pub peer: PeerId,
    /// 0 to 1; half full where unknown.
    pub fill_rate: Option<f64>,
    /// Where it is.
    pub subnet: Option<Subnet>,
}

/// How likely an indexer of this fill is to be chosen: most when half full, and never nothing, so that an empty one
/// can always win.
#[must_use]
pub fn weight(fill_rate: Option<f64>) -> f64 {
    let fill = fill_rate.unwrap_or(0.5);
    (fill * (1.0 - fill)).max(0.05)
}

/// Chooses up to `count` by weight, none twice; where subnets are to differ none from one of those that are `taken`, or were
/// just chosen, while others are left.
#[must_use]
pub fn choose(
    choices: &[Choice],
    count: usize,
    mut taken: Option<BTreeSet<Subnet>>,
    rng: &mut impl Rng,
) -> Vec<PeerId> {
    // Sorting by u^(1/w) draws by weight without replacement (Efraimidis and Spirakis, 2006).
    let mut drawn: Vec<(f64, &Choice)> =
        choices.iter().map(|choice| (rng.random::<f64>().powf(1.0 / weight(choice.fill_rate)), choice)).collect();
    drawn.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut is_new = |choice: &Choice| match (&mut taken, choice.subnet) {
        (Some(taken), Some(subnet)) => taken.insert(subnet),
        _ => true,
    };
    let (mut chosen, mut rest) = (Vec::new(), Vec::new());
    for (_, choice) in drawn {
        if is_new(choice) { chosen.push(choice.peer) } else { rest.push(choice.peer) }
    }
    chosen.extend(rest);
    chosen.truncate(count);
    chosen
}
