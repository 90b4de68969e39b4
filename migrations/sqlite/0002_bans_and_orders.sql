-- Who is banned from what. A ban that is over is kept for a day: it makes the next one longer.
CREATE TABLE bans (
    peer_id    TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    since_ms   INTEGER NOT NULL,
    -- Empty for a ban without end.
    until_ms   INTEGER,
    offences   INTEGER NOT NULL CHECK (offences >= 0),
    by_rule    INTEGER NOT NULL CHECK (by_rule IN (0, 1)),
    reason     TEXT    NOT NULL,
    PRIMARY KEY (peer_id, scope)
) STRICT, WITHOUT ROWID;

CREATE INDEX bans_by_end ON bans (until_ms);

-- What an operator ordered and a restart must not forget; a row is an order in force.
CREATE TABLE orders (
    name     TEXT    NOT NULL PRIMARY KEY,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
