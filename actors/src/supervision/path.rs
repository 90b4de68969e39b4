//! Where an actor stands in the tree: its name for logs, views and streams of chance, stable over restarts.

use std::{cmp::Ordering, fmt, sync::Arc};

/// An actor's path: `root/node/pool/heartbeat/<peer id>`; cheap to clone.
///
/// A name may hold slashes (`heartbeat/<peer id>`), so the supervisor is the nearest actor above, not always the text
/// before the last slash. Paths are ordered as a tree is read: what is above first, whole branches together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// `root`.
    #[must_use]
    pub fn root() -> Self {
        Self("root".into())
    }

    /// The path of the actor `name` below this one.
    #[must_use]
    pub fn child(&self, name: impl fmt::Display) -> Self {
        Self(format!("{}/{name}", self.0).into())
    }

    /// This path lies below `other`.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&*other.0).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.split('/').cmp(other.0.split('/'))
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_read_whole_before_its_neighbour() {
        let node = Path::root().child("node");
        let mut paths =
            [Path::root().child("node-2"), node.child("pool"), Path::root(), node.clone(), node.child("claim")];
        paths.sort();
        let read: Vec<_> = paths.iter().map(Path::as_str).collect();
        assert_eq!(read, ["root", "root/node", "root/node/claim", "root/node/pool", "root/node-2"]);
    }

    #[test]
    fn only_what_is_under_the_slash_is_below() {
        let node = Path::root().child("node");
        assert!(node.child("heartbeat/a").is_below(&node));
        assert!(node.is_below(&Path::root()));
        assert!(!Path::root().child("node-2").is_below(&node));
        assert!(!node.is_below(&node));
        assert!(!Path::root().child("").is_below(&Path::root()));
    }
}
