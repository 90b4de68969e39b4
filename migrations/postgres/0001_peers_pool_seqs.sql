-- The tables are those of SQLite, column by column: times are unix milliseconds, flags 0 or 1, and texts are ordered by
-- their bytes, so that both databases answer alike.

-- Whose these tables are: two members never share them.
CREATE TABLE owner (
    is_only  BIGINT NOT NULL PRIMARY KEY CHECK (is_only = 1),
    peer_id  TEXT   COLLATE "C" NOT NULL,
    since_ms BIGINT NOT NULL
);

-- Every known peer. `last_seen_ms` is empty for one that was only heard of.
CREATE TABLE peers (
    peer_id      TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    did          TEXT   COLLATE "C" NOT NULL,
    name         TEXT   COLLATE "C" NOT NULL,
    agent        TEXT   COLLATE "C" NOT NULL,
    is_node      BIGINT NOT NULL CHECK (is_node IN (0, 1)),
    is_indexer   BIGINT NOT NULL CHECK (is_indexer IN (0, 1)),
    last_seen_ms BIGINT
);

-- The one seen longest ago leaves first.
CREATE INDEX peers_by_last_seen ON peers (last_seen_ms NULLS FIRST, peer_id);

-- How the addresses of a peer fared.
CREATE TABLE addresses (
    peer_id        TEXT   COLLATE "C" NOT NULL REFERENCES peers (peer_id) ON DELETE CASCADE,
    address        TEXT   COLLATE "C" NOT NULL,
    succeeded      BIGINT NOT NULL CHECK (succeeded >= 0),
    failed         BIGINT NOT NULL CHECK (failed >= 0),
    last_ok_ms     BIGINT,
    last_failed_ms BIGINT,
    PRIMARY KEY (peer_id, address)
);

-- Indexers that this peer would go back to. It does not refer to `peers`: a member is not forgotten with a peer.
CREATE TABLE members (
    peer_id        TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    addresses      TEXT   COLLATE "C" NOT NULL,
    is_seed        BIGINT NOT NULL CHECK (is_seed IN (0, 1)),
    score          DOUBLE PRECISION,
    evidence       TEXT   COLLATE "C" NOT NULL,
    last_answer_ms BIGINT,
    standing       BIGINT NOT NULL CHECK (standing >= 0)
);

-- The highest sequence that was ever signed for one of our own DIDs; JSON of the wire holds integers up to 2^53 - 1.
CREATE TABLE seqs (
    did TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    seq BIGINT NOT NULL CHECK (seq BETWEEN 0 AND 9007199254740991)
);

-- The first key that was seen for a DID that does not name its key.
CREATE TABLE bindings (
    did          TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    pub_key      TEXT   COLLATE "C" NOT NULL,
    last_seen_ms BIGINT NOT NULL
);

CREATE INDEX bindings_by_last_seen ON bindings (last_seen_ms);
