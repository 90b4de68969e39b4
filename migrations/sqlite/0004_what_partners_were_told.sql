-- What partners were told last of a resource of ours: which version, and, while it is not the one that is held, who could
-- see it. A change that was kept quiet is told from there. What was held before this table knew it counts as told.
ALTER TABLE resources ADD COLUMN told_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE resources ADD COLUMN told_to      TEXT;
UPDATE resources SET told_version = version;

-- What is removed is counted apart, and the oldest leaves first, of one creator and of all. With the empty `body` in them,
-- the indexes alone are counted.
DROP INDEX resources_removed;
CREATE INDEX resources_removed ON resources (updated_at_ms, number, body) WHERE body IS NULL;
CREATE INDEX resources_removed_of ON resources (creator, updated_at_ms, number, body) WHERE body IS NULL;

-- What goes to several is kept once. An outbox row has its own payload, or the number of a shared one, which goes with
-- the last that waits for it.
CREATE TABLE outbox_payloads (
    number  INTEGER PRIMARY KEY,
    payload BLOB    NOT NULL
) STRICT;

ALTER TABLE outbox ADD COLUMN payload_number INTEGER REFERENCES outbox_payloads (number);

CREATE INDEX outbox_by_payload ON outbox (payload_number) WHERE payload_number IS NOT NULL;

-- Subjects of the bus do not wait for each other.
CREATE INDEX outbox_waiting_by_subject ON outbox (destination, subject, id) WHERE fate = 'waiting';
