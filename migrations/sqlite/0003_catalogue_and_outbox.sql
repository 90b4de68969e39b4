-- What peers are to us, by the word of the operator and the applications. Without a relation there is no row.
CREATE TABLE relations (
    peer_id       TEXT    NOT NULL PRIMARY KEY,
    relation      TEXT    NOT NULL CHECK (relation IN ('self', 'partner', 'known', 'blacklist')),
    name          TEXT    NOT NULL,
    verified      INTEGER NOT NULL CHECK (verified IN (0, 1)),
    changed_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The catalogue. `body` is the signed text of its creator, and empty once the resource is removed: the version of what
-- is gone keeps an older text from coming back. `name` and `rest` are what is searched, in the form that is compared.
CREATE TABLE resources (
    number        INTEGER PRIMARY KEY,
    creator       TEXT    NOT NULL,
    resource_id   TEXT    NOT NULL,
    version       INTEGER NOT NULL CHECK (version BETWEEN 1 AND 9007199254740991),
    updated_at_ms INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    access        TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    rest          TEXT    NOT NULL,
    body          TEXT,
    UNIQUE (creator, resource_id)
) STRICT;

CREATE INDEX resources_removed ON resources (updated_at_ms) WHERE body IS NULL;

-- What is searched, in parts of three characters. The texts themselves are in `resources`.
CREATE VIRTUAL TABLE resource_words USING fts5 (
    name, rest, content = '', contentless_delete = 1, tokenize = 'trigram case_sensitive 1'
);

-- With whom a resource is shared: `*` is any group of that peer.
CREATE TABLE partnerships (
    creator     TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    peer_id     TEXT NOT NULL,
    group_name  TEXT NOT NULL,
    PRIMARY KEY (creator, resource_id, peer_id, group_name),
    FOREIGN KEY (creator, resource_id) REFERENCES resources (creator, resource_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- What is to reach the bus or a peer. An id is never used again. `payload` is empty once it waits no longer.
CREATE TABLE outbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    destination   TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    user_name     TEXT    NOT NULL,
    group_names   TEXT    NOT NULL,
    datatype      TEXT    NOT NULL,
    message_id    TEXT    NOT NULL,
    may_drop      INTEGER NOT NULL CHECK (may_drop IN (0, 1)),
    created_at_ms INTEGER NOT NULL,
    attempts      INTEGER NOT NULL CHECK (attempts >= 0),
    next_at_ms    INTEGER,
    fate          TEXT    NOT NULL CHECK (fate IN ('waiting', 'delivered', 'refused', 'expired', 'dropped')),
    ended_at_ms   INTEGER,
    detail        TEXT    NOT NULL,
    payload       BLOB    NOT NULL
) STRICT;

CREATE INDEX outbox_waiting ON outbox (destination, id) WHERE fate = 'waiting';

CREATE INDEX outbox_waiting_by_age ON outbox (created_at_ms) WHERE fate = 'waiting';

CREATE INDEX outbox_droppable ON outbox (id) WHERE fate = 'waiting' AND may_drop = 1;

CREATE INDEX outbox_ended ON outbox (ended_at_ms, id) WHERE fate <> 'waiting';

-- What came and had its effect: it has it once.
CREATE TABLE receipts (
    number         INTEGER PRIMARY KEY,
    source         TEXT    NOT NULL,
    message_id     TEXT    NOT NULL,
    received_at_ms INTEGER NOT NULL,
    UNIQUE (source, message_id)
) STRICT;

CREATE INDEX receipts_by_age ON receipts (received_at_ms);
