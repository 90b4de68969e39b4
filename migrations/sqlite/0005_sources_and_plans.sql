-- Who told us what waits for the bus, so that one source cannot fill the outbox for all; empty for what is our own.
ALTER TABLE outbox ADD COLUMN source TEXT NOT NULL DEFAULT '';

CREATE INDEX outbox_by_source ON outbox (source) WHERE fate = 'waiting' AND source <> '';

-- With whom plans are made. The steps that wait for them are in the outbox.
CREATE TABLE planner_sessions (
    peer_id      TEXT    NOT NULL PRIMARY KEY,
    opened_at_ms INTEGER NOT NULL,
    fed          INTEGER NOT NULL CHECK (fed >= 0)
) STRICT, WITHOUT ROWID;
