-- The day that is reported when it is over, as its reporter wrote it at its last look. One row at most.
CREATE TABLE running_day (
    slot BIGINT NOT NULL PRIMARY KEY CHECK (slot = 1),
    day  TEXT   COLLATE "C" NOT NULL
);
