-- Who is banned from what. A ban that is over is kept for a day: it makes the next one longer.
CREATE TABLE bans (
    peer_id    TEXT   COLLATE "C" NOT NULL,
    scope      TEXT   COLLATE "C" NOT NULL,
    since_ms   BIGINT NOT NULL,
    -- Empty for a ban without end.
    until_ms   BIGINT,
    offences   BIGINT NOT NULL CHECK (offences >= 0),
    by_rule    BIGINT NOT NULL CHECK (by_rule IN (0, 1)),
    reason     TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (peer_id, scope)
);

CREATE INDEX bans_by_end ON bans (until_ms);

-- What an operator ordered and a restart must not forget; a row is an order in force.
CREATE TABLE orders (
    name     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    since_ms BIGINT NOT NULL
);
