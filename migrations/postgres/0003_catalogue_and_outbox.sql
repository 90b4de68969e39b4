-- What peers are to us, by the word of the operator and the applications. Without a relation there is no row.
CREATE TABLE relations (
    peer_id       TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    relation      TEXT   COLLATE "C" NOT NULL CHECK (relation IN ('self', 'partner', 'known', 'blacklist')),
    name          TEXT   COLLATE "C" NOT NULL,
    verified      BIGINT NOT NULL CHECK (verified IN (0, 1)),
    changed_at_ms BIGINT NOT NULL
);

-- The catalogue. `body` is the signed text of its creator, and empty once the resource is removed: the version of what
-- is gone keeps an older text from coming back. `name` and `rest` are what is searched, in the form that is compared.
CREATE TABLE resources (
    number        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    creator       TEXT   COLLATE "C" NOT NULL,
    resource_id   TEXT   COLLATE "C" NOT NULL,
    version       BIGINT NOT NULL CHECK (version BETWEEN 1 AND 9007199254740991),
    updated_at_ms BIGINT NOT NULL,
    kind          TEXT   COLLATE "C" NOT NULL,
    access        TEXT   COLLATE "C" NOT NULL,
    name          TEXT   COLLATE "C" NOT NULL,
    rest          TEXT   COLLATE "C" NOT NULL,
    body          TEXT   COLLATE "C",
    words         TSVECTOR GENERATED ALWAYS AS (
        setweight(to_tsvector('simple'::regconfig, name), 'A') || setweight(to_tsvector('simple'::regconfig, rest), 'D')
    ) STORED,
    UNIQUE (creator, resource_id)
);

CREATE INDEX resources_removed ON resources (updated_at_ms) WHERE body IS NULL;

-- With whom a resource is shared: `*` is any group of that peer.
CREATE TABLE partnerships (
    creator     TEXT COLLATE "C" NOT NULL,
    resource_id TEXT COLLATE "C" NOT NULL,
    peer_id     TEXT COLLATE "C" NOT NULL,
    group_name  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (creator, resource_id, peer_id, group_name),
    FOREIGN KEY (creator, resource_id) REFERENCES resources (creator, resource_id) ON DELETE CASCADE
);

-- What is to reach the bus or a peer. An id is never used again. `payload` is empty once it waits no longer.
CREATE TABLE outbox (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination   TEXT   COLLATE "C" NOT NULL,
    subject       TEXT   COLLATE "C" NOT NULL,
    user_name     TEXT   COLLATE "C" NOT NULL,
    group_names   TEXT   COLLATE "C" NOT NULL,
    datatype      TEXT   COLLATE "C" NOT NULL,
    message_id    TEXT   COLLATE "C" NOT NULL,
    may_drop      BIGINT NOT NULL CHECK (may_drop IN (0, 1)),
    created_at_ms BIGINT NOT NULL,
    attempts      BIGINT NOT NULL CHECK (attempts >= 0),
    next_at_ms    BIGINT,
    fate          TEXT   COLLATE "C" NOT NULL
        CHECK (fate IN ('waiting', 'delivered', 'refused', 'expired', 'dropped')),
    ended_at_ms   BIGINT,
    detail        TEXT   COLLATE "C" NOT NULL,
    payload       BYTEA  NOT NULL
);

CREATE INDEX outbox_waiting ON outbox (destination, id) WHERE fate = 'waiting';

CREATE INDEX outbox_waiting_by_age ON outbox (created_at_ms) WHERE fate = 'waiting';

CREATE INDEX outbox_droppable ON outbox (id) WHERE fate = 'waiting' AND may_drop = 1;

CREATE INDEX outbox_ended ON outbox (ended_at_ms, id) WHERE fate <> 'waiting';

-- What came and had its effect: it has it once.
CREATE TABLE receipts (
    number         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source         TEXT   COLLATE "C" NOT NULL,
    message_id     TEXT   COLLATE "C" NOT NULL,
    received_at_ms BIGINT NOT NULL,
    UNIQUE (source, message_id)
);

CREATE INDEX receipts_by_age ON receipts (received_at_ms);
