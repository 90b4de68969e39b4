-- Times are unix milliseconds, peer ids and addresses their usual text.

-- Every known peer. `last_seen_ms` is empty for one that was only heard of.
CREATE TABLE peers (
    peer_id      TEXT    NOT NULL PRIMARY KEY,
    did          TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    agent        TEXT    NOT NULL,
    is_node      INTEGER NOT NULL CHECK (is_node IN (0, 1)),
    is_indexer   INTEGER NOT NULL CHECK (is_indexer IN (0, 1)),
    last_seen_ms INTEGER
) STRICT, WITHOUT ROWID;

-- The one seen longest ago leaves first.
CREATE INDEX peers_by_last_seen ON peers (last_seen_ms);

-- How the addresses of a peer fared.
CREATE TABLE addresses (
    peer_id        TEXT    NOT NULL REFERENCES peers (peer_id) ON DELETE CASCADE,
    address        TEXT    NOT NULL,
    succeeded      INTEGER NOT NULL CHECK (succeeded >= 0),
    failed         INTEGER NOT NULL CHECK (failed >= 0),
    last_ok_ms     INTEGER,
    last_failed_ms INTEGER,
    PRIMARY KEY (peer_id, address)
) STRICT, WITHOUT ROWID;

-- Indexers that this peer would go back to. It does not refer to `peers`: a member is not forgotten with a peer.
CREATE TABLE members (
    peer_id        TEXT    NOT NULL PRIMARY KEY,
    addresses      TEXT    NOT NULL,
    is_seed        INTEGER NOT NULL CHECK (is_seed IN (0, 1)),
    score          REAL,
    evidence       TEXT    NOT NULL,
    last_answer_ms INTEGER,
    standing       INTEGER NOT NULL CHECK (standing >= 0)
) STRICT, WITHOUT ROWID;

-- The highest sequence that was ever signed for one of our own DIDs; JSON of the wire holds integers up to 2^53 - 1.
CREATE TABLE seqs (
    did TEXT    NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL CHECK (seq BETWEEN 0 AND 9007199254740991)
) STRICT, WITHOUT ROWID;

-- The first key that was seen for a DID that does not name its key.
CREATE TABLE bindings (
    did          TEXT    NOT NULL PRIMARY KEY,
    pub_key      TEXT    NOT NULL,
    last_seen_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX bindings_by_last_seen ON bindings (last_seen_ms);
