//! The files of one member: what `muster init` would make, for a place in the demo.

use std::net::SocketAddr;

use toml_edit::Array;

use super::{
    Error, SEED,
    state::{Folder, Life, Member, Role},
};
use crate::cli::init::{Plan, create};

/// A member to be made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// The demo's folder.
    pub(crate) folder: &'a Folder,
    /// Its name.
    pub(crate) name: &'a str,
    /// What it will be.
    pub(crate) role: Role,
    /// Where it will listen for peers.
    pub(crate) peers: SocketAddr,
    /// Where its admin endpoint will listen.
    pub(crate) admin: SocketAddr,
    /// Where its organisation's bus will listen, if it has one.
    pub(crate) bus: Option<SocketAddr>,
    /// The member that it will know; none for the seed itself.
    pub(crate) seed: Option<&'a Member>,
}

impl Wanted<'_> {
    /// Makes its folder, its key and its settings. The seed's pre-shared key is the network's.
    ///
    /// # Errors
    /// When `init` would refuse.
    pub(crate) fn make(self) -> Result<Member, Error> {
        let made = create(&self.plan()).map_err(|failure| Error::Files { name: self.name.to_owned(), failure })?;
        Ok(Member {
            name: self.name.to_owned(),
            role: self.role,
            peer_id: made.peer_id,
            did: made.did,
            admin: self.admin,
            p2p_port: self.peers.port(),
            bus: self.bus,
            pid: 0,
            dir: self.folder.member(self.name),
            state: Life::Waiting,
        })
    }

    fn plan(&self) -> Plan {
        let psk = self.seed.map(|_| self.folder.member(SEED).join("swarm.key"));
        let mut plan = Plan { dir: self.folder.member(self.name), psk, ..Plan::default() };
        plan.set("node.name", self.name);
        plan.set("node.mode", self.role.to_string());
        plan.set("network.profile", "local");
        plan.set("network.port", i64::from(self.peers.port()));
        plan.set("network.listen", Array::from_iter([format!("/ip4/{}/tcp/{}", self.peers.ip(), self.peers.port())]));
        plan.set("network.seeds", self.seed.map(full_address).into_iter().collect::<Array>());
        plan.set("admin.listen", self.admin.to_string());
        if let Some(bus) = self.bus {
            plan.set("bus.url", format!("nats://{bus}"));
        }
        plan
    }
}

/// Where peers dial it, and whom they expect there.
fn full_address(member: &Member) -> String {
    format!("{}/p2p/{}", member.p2p_addr(), member.peer_id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wanted<'a>(folder: &'a Folder, name: &'a str, port: u16, seed: Option<&'a Member>) -> Wanted<'a> {
        let role = if seed.is_some() { Role::Node } else { Role::Indexer };
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let bus = seed.map(|_| at(port + 2));
        Wanted { folder, name, role, peers: at(port), admin: at(port + 1), bus, seed }
    }

    #[test]
    fn all_share_one_network_key_and_know_the_seed() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::at(temp.path().to_owned());
        let seed = wanted(&folder, SEED, 20_001, None).make().unwrap();
        let paris = wanted(&folder, "paris", 20_003, Some(&seed)).make().unwrap();
        let read = |path: &str| std::fs::read_to_string(temp.path().join(path)).unwrap();
        assert_eq!(read("indexer-1/swarm.key"), read("paris/swarm.key"));
        assert_ne!(seed.peer_id, paris.peer_id);
        let settings = read("paris/muster.toml");
        let address = format!("/ip4/127.0.0.1/tcp/20001/p2p/{}", seed.peer_id);
        for line in
            [format!("seeds = [\"{address}\"]"), "listen = \"127.0.0.1:20004\"".into(), "profile = \"local\"".into()]
        {
            assert!(settings.lines().any(|found| found == line), "{line} in {settings}");
        }
        assert!(settings.lines().any(|found| found == "url = \"nats://127.0.0.1:20005\""), "{settings}");
        assert!(!read("indexer-1/muster.toml").lines().any(|found| found.starts_with("url = \"nats://")));
    }
}
