-- What keys said of themselves: that they are to be believed no longer. The text is kept as it was signed.
CREATE TABLE revocations (
    peer_id  TEXT    NOT NULL PRIMARY KEY,
    text     TEXT    NOT NULL,
    heard_ms INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    weight   TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
