-- What keys said of themselves: that they are to be believed no longer. The text is kept as it was signed.
CREATE TABLE revocations (
    peer_id  TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    text     TEXT   COLLATE "C" NOT NULL,
    heard_ms BIGINT NOT NULL,
    until_ms BIGINT NOT NULL,
    weight   TEXT   COLLATE "C" NOT NULL
);
