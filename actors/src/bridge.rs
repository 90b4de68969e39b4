//! placeholder until w-bus is merged
/// The actor.
#[allow(missing_docs)]
pub enum Msg {
    Grew,
}
