-- The day that is reported when it is over, as its reporter wrote it at its last look. One row at most.
CREATE TABLE running_day (
    slot INTEGER NOT NULL PRIMARY KEY CHECK (slot = 1),
    day  TEXT    NOT NULL
) STRICT;
