-- The same tables as for PostgreSQL. Times are milliseconds since the epoch, bodies are JSON.

-- One row: who may write, and what is the highest of everything that is numbered.
CREATE TABLE leadership (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    term INTEGER NOT NULL,
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL,
    -- Grows by one with each commit: tells after a lost connection whether it was done.
    transactions INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    highest_job INTEGER NOT NULL,
    highest_fence INTEGER NOT NULL
) STRICT;
INSERT INTO leadership VALUES (1, 0, '', 0, 0, 0, 0, 0);

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    submitter TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    submitted_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX job_state ON job (state, queue, id);
CREATE INDEX job_submitter ON job (submitter, id);

-- Every node that ever had a part of a job.
CREATE TABLE job_node (
    node TEXT NOT NULL,
    job INTEGER NOT NULL,
    PRIMARY KEY (node, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE submission (
    submitter TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    jobs TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (submitter, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX submission_at ON submission (at_ms);

CREATE TABLE node (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    serial TEXT UNIQUE,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE queue (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    expires_ms INTEGER NOT NULL,
    used_by TEXT,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE revocation (
    serial TEXT PRIMARY KEY,
    node TEXT,
    at_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    why TEXT
) STRICT;

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

-- Append-only.
CREATE TABLE event (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    job INTEGER,
    node TEXT,
    actor TEXT,
    body TEXT
) STRICT;
CREATE INDEX event_job ON event (job, seq) WHERE job IS NOT NULL;
CREATE INDEX event_node ON event (node, seq) WHERE node IS NOT NULL;

CREATE TABLE orphan (
    job INTEGER NOT NULL REFERENCES job (id),
    attempt INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    node TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, attempt, fence, node)
) STRICT, WITHOUT ROWID;
