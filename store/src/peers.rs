//! Every known peer, its addresses, and how they fared.

use std::collections::HashMap;

use multiaddr::Multiaddr;
use protocol::{PeerId, Timestamp, wire::Role};

use crate::{
    Rows, StoreError,
    repository::{Database, Repository as _},
    session::{Row, Session, values},
    write::{Refusal, check_address, check_length_max},
};

/// Addresses kept of a peer: what the wire lets a peer have.
pub const ADDRESSES_PER_PEER_MAX: usize = 8;

/// Bytes of one address as text: a host name of the longest kind with everything around it.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// Bytes of a DID, a key, a name or an agent: the longest name of the wire has 64 characters of 4 bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// What is known of a peer. What is not known (empty, neither role, none) leaves what was known before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// Who.
    pub peer: PeerId,
    /// Its DID, empty when not known; at most [`TEXT_BYTES_MAX`] bytes, like the other texts.
    pub did: String,
    /// Its name, empty when not known.
    pub name: String,
    /// What it said to be; neither when not known.
    pub role: Role,
    /// Program and version, empty when not known.
    pub agent: String,
    /// When it was last heard itself, to the millisecond; none when others told of it.
    pub last_seen: Option<Timestamp>,
    /// Where; past [`ADDRESSES_PER_PEER_MAX`] those stay that worked last.
    pub addresses: Vec<AddressRow>,
}

/// An address and how it fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRow {
    /// Without `/p2p/`, at most [`ADDRESS_BYTES_MAX`] bytes as text.
    pub address: Multiaddr,
    /// Dials that reached the peer.
    pub succeeded: u32,
    /// Dials that did not.
    pub failed: u32,
    /// When it last worked, to the millisecond.
    pub last_ok: Option<Timestamp>,
    /// When it last failed, to the millisecond.
    pub last_failed: Option<Timestamp>,
}

pub(crate) async fn write(session: &mut Session<'_>, row: &PeerRow) -> Result<Result<(), Refusal>, StoreError> {
    let texts = [("did", &row.did), ("name", &row.name), ("agent", &row.agent)];
    for (field, text) in texts {
        if let Err(refusal) = check_length_max(field, text, TEXT_BYTES_MAX) {
            return Ok(Err(refusal));
        }
    }
    // Before anything is written: a refused write leaves no half.
    let mut addresses: Vec<&AddressRow> = row.addresses.iter().collect();
    addresses.sort_by_key(|row| (std::cmp::Reverse(row.last_ok), row.failed));
    addresses.truncate(ADDRESSES_PER_PEER_MAX);
    if let Err(refusal) = addresses.iter().try_for_each(|row| check_address(&row.address).map(|_| ())) {
        return Ok(Err(refusal));
    }
    let sql = "INSERT INTO peers (peer_id, did, name, agent, is_node, is_indexer, last_seen_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (peer_id) DO UPDATE SET
             did = coalesce(nullif(excluded.did, ''), peers.did),
             name = coalesce(nullif(excluded.name, ''), peers.name),
             agent = coalesce(nullif(excluded.agent, ''), peers.agent),
             is_node = CASE WHEN excluded.is_node + excluded.is_indexer > 0
                 THEN excluded.is_node ELSE peers.is_node END,
             is_indexer = CASE WHEN excluded.is_node + excluded.is_indexer > 0
                 THEN excluded.is_indexer ELSE peers.is_indexer END,
             last_seen_ms = coalesce(excluded.last_seen_ms, peers.last_seen_ms)";
    let values = values![&row.peer, &row.did, &row.name, &row.agent, row.role.node, row.role.indexer, row.last_seen];
    session.execute(sql, values).await?;
    for address in addresses {
        write_address(session, &row.peer, address).await?;
    }
    Ok(Ok(()))
}

/// Writes an address, and its peer as one that was heard of if it is not known.
pub(crate) async fn write_heard(
    session: &mut Session<'_>,
    peer: &PeerId,
    row: &AddressRow,
) -> Result<Result<(), Refusal>, StoreError> {
    if let Err(refusal) = check_address(&row.address) {
        return Ok(Err(refusal));
    }
    let sql = "INSERT INTO peers (peer_id, did, name, agent, is_node, is_indexer) VALUES ($1, '', '', '', 0, 0)
         ON CONFLICT (peer_id) DO NOTHING";
    session.execute(sql, values![peer]).await?;
    write_address(session, peer, row).await?;
    Ok(Ok(()))
}

async fn write_address(session: &mut Session<'_>, peer: &PeerId, row: &AddressRow) -> Result<(), StoreError> {
    let sql = "INSERT INTO addresses (peer_id, address, succeeded, failed, last_ok_ms, last_failed_ms)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (peer_id, address) DO UPDATE SET
             succeeded = excluded.succeeded, failed = excluded.failed,
             last_ok_ms = excluded.last_ok_ms, last_failed_ms = excluded.last_failed_ms";
    let values = values![peer, row.address.to_string(), row.succeeded, row.failed, row.last_ok, row.last_failed];
    session.execute(sql, values).await?;
    Ok(())
}

pub(crate) async fn forget(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    session.execute("DELETE FROM peers WHERE peer_id = $1", values![peer]).await?;
    Ok(())
}

/// Lets those addresses of a peer go that are over the bound: what never worked first, then what worked longest ago.
pub(crate) async fn prune_addresses(session: &mut Session<'_>, peer: &PeerId) -> Result<(), StoreError> {
    let sql = "DELETE FROM addresses WHERE peer_id = $1 AND address IN (
             SELECT address FROM addresses WHERE peer_id = $1
             ORDER BY last_ok_ms ASC NULLS FIRST, failed DESC, address
             LIMIT (SELECT CASE WHEN count(*) > $2 THEN count(*) - $2 ELSE 0 END FROM addresses WHERE peer_id = $1))";
    session.execute(sql, values![peer, ADDRESSES_PER_PEER_MAX as u64]).await?;
    Ok(())
}

/// Lets those peers go that are over `max`: those only heard of first, then those seen longest ago.
pub(crate) async fn prune(session: &mut Session<'_>, max: u32) -> Result<u64, StoreError> {
    let sql = "DELETE FROM peers WHERE peer_id IN (
             SELECT peer_id FROM peers ORDER BY last_seen_ms ASC NULLS FIRST, peer_id
             LIMIT (SELECT CASE WHEN count(*) > $1 THEN count(*) - $1 ELSE 0 END FROM peers))";
    session.execute(sql, values![max]).await
}

pub(crate) async fn forget_stale(database: &Database, before: Timestamp, at_most: u32) -> Result<u64, StoreError> {
    let mut turn = database.turn(false).await?;
    let sql = "DELETE FROM peers WHERE peer_id IN (
             SELECT peer_id FROM peers WHERE last_seen_ms < $1 ORDER BY last_seen_ms, peer_id LIMIT $2 + 0)";
    let outcome = turn.session().execute(sql, values![before, at_most]).await;
    turn.end(outcome).await
}

pub(crate) async fn read_all(session: &mut Session<'_>, limit: u32) -> Result<Rows<PeerRow>, StoreError> {
    let sql = "SELECT peer_id, did, name, agent, is_node, is_indexer, last_seen_ms FROM peers
         ORDER BY last_seen_ms DESC NULLS LAST, peer_id DESC LIMIT $1 + 0";
    let peers = session.fetch(sql, values![limit]).await?;
    let sql = "SELECT peer_id, address, succeeded, failed, last_ok_ms, last_failed_ms FROM addresses
         WHERE peer_id IN (SELECT peer_id FROM peers ORDER BY last_seen_ms DESC NULLS LAST, peer_id DESC LIMIT $1 + 0)
         ORDER BY peer_id, last_ok_ms DESC NULLS LAST, failed, address";
    let addresses = session.fetch(sql, values![limit]).await?;
    Ok(assemble(&peers, &addresses))
}

pub(crate) async fn read_one(session: &mut Session<'_>, peer: &PeerId) -> Result<Option<PeerRow>, StoreError> {
    let sql = "SELECT peer_id, did, name, agent, is_node, is_indexer, last_seen_ms FROM peers WHERE peer_id = $1";
    let peers = session.fetch(sql, values![peer]).await?;
    let sql = "SELECT peer_id, address, succeeded, failed, last_ok_ms, last_failed_ms FROM addresses
         WHERE peer_id = $1 ORDER BY last_ok_ms DESC NULLS LAST, failed, address";
    let addresses = session.fetch(sql, values![peer]).await?;
    Ok(assemble(&peers, &addresses).rows.pop())
}

/// Hands each peer its addresses. Between the two reads a peer may have come or gone: such addresses are not missed.
fn assemble(peers: &[Row], addresses: &[Row]) -> Rows<PeerRow> {
    let mut peers = Rows::read("peers", peers, read_row);
    let addresses = Rows::read("addresses", addresses, read_address);
    let places: HashMap<PeerId, usize> = peers.rows.iter().enumerate().map(|(place, row)| (row.peer, place)).collect();
    for (peer, address) in addresses.rows {
        if let Some(row) = places.get(&peer).and_then(|place| peers.rows.get_mut(*place)) {
            row.addresses.push(address);
        }
    }
    peers.skipped += addresses.skipped;
    peers
}

fn read_row(row: &Row) -> Option<PeerRow> {
    Some(PeerRow {
        peer: row.peer("peer_id")?,
        did: row.text("did")?.to_owned(),
        name: row.text("name")?.to_owned(),
        role: Role { node: row.flag("is_node")?, indexer: row.flag("is_indexer")? },
        agent: row.text("agent")?.to_owned(),
        last_seen: row.time_or_none("last_seen_ms")?,
        addresses: Vec::new(),
    })
}

fn read_address(row: &Row) -> Option<(PeerId, AddressRow)> {
    let peer = row.peer("peer_id")?;
    let address = AddressRow {
        address: row.text("address")?.parse().ok()?,
        succeeded: row.count("succeeded")?,
        failed: row.count("failed")?,
        last_ok: row.time_or_none("last_ok_ms")?,
        last_failed: row.time_or_none("last_failed_ms")?,
    };
    Some((peer, address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{
        Settings, Store, Write,
        testing::{address, address_row, at, meddle, on_both, peer, peer_row},
    };

    async fn ids(store: &Store) -> Vec<PeerId> {
        store.peers(u32::MAX).await.unwrap().rows.iter().map(|row| row.peer).collect()
    }

    on_both! {
        async fn peers_and_addresses_survive_a_restart_whole(place) {
            let store = place.open().await;
            let heard = PeerRow {
                did: String::new(),
                name: String::new(),
                role: Role::default(),
                agent: String::new(),
                last_seen: None,
                addresses: vec![address_row(9)],
                ..peer_row(3)
            };
            let writes = [
                Write::Peer(peer_row(1)),
                Write::Peer(peer_row(2)),
                Write::Address { peer: heard.peer, address: address_row(9) },
            ];
            assert_eq!(store.apply(&writes).await.unwrap().written, 3);
            store.close().await;
            let store = place.open().await;
            let expected = vec![peer_row(2), peer_row(1), heard];
            assert_eq!(store.peers(10).await.unwrap(), Rows { rows: expected, skipped: 0 });
            assert_eq!(store.peers(1).await.unwrap().rows, [peer_row(2)]);
            assert_eq!(store.peer(&peer(1)).await.unwrap(), Some(peer_row(1)));
            assert_eq!(store.peer(&peer(4)).await.unwrap(), None);
            store.apply(&[Write::ForgetPeer(peer(1))]).await.unwrap();
            assert_eq!(store.peer(&peer(1)).await.unwrap(), None);
        }

        async fn g22_what_is_not_known_erases_nothing(place) {
            let store = place.open().await;
            let writes = [
                Write::Peer(peer_row(1)),
                Write::Address { peer: peer(1), address: address_row(1) },
                Write::Peer(PeerRow {
                    peer: peer(1),
                    did: String::new(),
                    name: String::new(),
                    role: Role::default(),
                    agent: String::new(),
                    last_seen: None,
                    addresses: Vec::new(),
                }),
            ];
            store.apply(&writes).await.unwrap();
            assert_eq!(store.peer(&peer(1)).await.unwrap(), Some(peer_row(1)));
            // What is known replaces, roles together: a node that became an indexer is no node.
            let changed = PeerRow { name: "lyon".into(), role: Role { node: false, indexer: true }, ..peer_row(1) };
            store.apply(&[Write::Peer(changed.clone())]).await.unwrap();
            assert_eq!(store.peer(&peer(1)).await.unwrap(), Some(changed));
        }

        async fn at_the_bound_all_stay_and_past_it_the_longest_unseen_leaves(place) {
            let store = place.open_with(&Settings { peers_max: 3, ..Settings::default() }).await;
            let writes: Vec<Write> = [2, 1, 3].into_iter().map(|n| Write::Peer(peer_row(n))).collect();
            assert_eq!(store.apply(&writes).await.unwrap().evicted, 0);
            assert_eq!(ids(&store).await, [peer(3), peer(2), peer(1)]);
            assert_eq!(store.apply(&[Write::Peer(peer_row(4))]).await.unwrap().evicted, 1);
            assert_eq!(ids(&store).await, [peer(4), peer(3), peer(2)]);
            let heard = Write::Address { peer: peer(9), address: address_row(9) };
            assert_eq!(store.apply(&[heard]).await.unwrap().evicted, 1);
            assert_eq!(ids(&store).await, [peer(4), peer(3), peer(2)], "hearsay pushes nobody out");
        }

        async fn a_peer_keeps_the_addresses_that_worked_last(place) {
            let store = place.open().await;
            let fared = |n: u32, last_ok| AddressRow { last_ok, ..address_row(n) };
            let mut addresses: Vec<AddressRow> = (0..8).map(|n| fared(n, Some(at(100 + i64::from(n))))).collect();
            store.apply(&[Write::Peer(PeerRow { addresses: addresses.clone(), ..peer_row(1) })]).await.unwrap();
            assert_eq!(store.peer(&peer(1)).await.unwrap().unwrap().addresses.len(), ADDRESSES_PER_PEER_MAX);
            let writes =
                [fared(8, Some(at(200))), fared(9, None)].map(|address| Write::Address { peer: peer(1), address });
            store.apply(&writes).await.unwrap();
            let kept: Vec<Multiaddr> =
                store.peer(&peer(1)).await.unwrap().unwrap().addresses.into_iter().map(|row| row.address).collect();
            assert_eq!(kept, [8, 7, 6, 5, 4, 3, 2, 1].map(address));
            // The same when one write brings them all.
            addresses.extend([fared(8, Some(at(200))), fared(9, None)]);
            store.apply(&[Write::Peer(PeerRow { addresses, ..peer_row(2) })]).await.unwrap();
            assert_eq!(store.peer(&peer(2)).await.unwrap().unwrap().addresses.len(), ADDRESSES_PER_PEER_MAX);
        }

        async fn g44_stale_peers_go_in_bounded_batches(place) {
            let store = place.open().await;
            let mut writes: Vec<Write> = (1..=10).map(|n| Write::Peer(peer_row(n))).collect();
            writes.push(Write::Address { peer: peer(11), address: address_row(11) });
            store.apply(&writes).await.unwrap();
            let before = peer_row(8).last_seen.unwrap();
            assert_eq!(store.forget_stale(before, 5).await.unwrap(), 5);
            assert_eq!(store.forget_stale(before, 5).await.unwrap(), 2);
            assert_eq!(store.forget_stale(before, 5).await.unwrap(), 0);
            assert_eq!(ids(&store).await, [peer(10), peer(9), peer(8), peer(11)]);
        }

        async fn a_text_over_its_bound_refuses_that_write_alone(place) {
            let store = place.open().await;
            let longest = PeerRow { name: "n".repeat(TEXT_BYTES_MAX), ..peer_row(1) };
            let over = PeerRow { name: "n".repeat(TEXT_BYTES_MAX + 1), ..peer_row(2) };
            let host = |bytes: usize| -> Multiaddr { format!("/dns4/{}", "h".repeat(bytes - 6)).parse().unwrap() };
            let row = |bytes| AddressRow { address: host(bytes), ..address_row(1) };
            let far = PeerRow { addresses: vec![row(ADDRESS_BYTES_MAX + 1)], ..peer_row(4) };
            let writes = [
                Write::Peer(longest.clone()),
                Write::Peer(over),
                Write::Address { peer: peer(3), address: row(ADDRESS_BYTES_MAX) },
                Write::Address { peer: peer(5), address: row(ADDRESS_BYTES_MAX + 1) },
                Write::Peer(far),
            ];
            let applied = store.apply(&writes).await.unwrap();
            assert_eq!(applied.written, 2);
            assert_eq!(applied.refused.iter().map(|refused| refused.index).collect::<Vec<_>>(), [1, 3, 4]);
            assert_eq!(ids(&store).await, [peer(1), peer(3)]);
        }

        async fn a_row_that_makes_no_sense_is_left_out_and_counted(place) {
            let store = place.open().await;
            store.apply(&[Write::Peer(peer_row(1)), Write::Peer(peer_row(2))]).await.unwrap();
            for statement in [
                "INSERT INTO peers VALUES ('nobody', '', '', '', 0, 0, 1)",
                "INSERT INTO peers SELECT peer_id || 'x', '', '', '', 0, 0, 1 FROM peers WHERE last_seen_ms = 1000",
                "UPDATE addresses SET address = '/nowhere' WHERE peer_id = (SELECT min(peer_id) FROM addresses)",
                "INSERT INTO members VALUES ('nobody', '[]', 0, 1, '', 0, 0)",
                "INSERT INTO members SELECT peer_id, 'no json', 0, 1, '', 0, 0 FROM peers WHERE last_seen_ms > 1",
            ] {
                meddle(&store, statement).await;
            }
            let peers = store.peers(10).await.unwrap();
            assert_eq!((peers.rows.len(), peers.skipped), (2, 3));
            let members = store.remembered_members().await.unwrap();
            assert_eq!((members.rows.len(), members.skipped), (0, 3));
        }
    }
}
