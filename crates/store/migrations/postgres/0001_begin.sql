-- The same tables as for SQLite. Times are milliseconds since the epoch, bodies are JSON.

-- One row: who may write, and what is the highest of everything that is numbered.
CREATE TABLE leadership (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    term BIGINT NOT NULL,
    holder TEXT NOT NULL,
    until_ms BIGINT NOT NULL,
    -- Grows by one with each commit: tells after a lost connection whether it was done.
    transactions BIGINT NOT NULL,
    last_event BIGINT NOT NULL,
    highest_job BIGINT NOT NULL,
    highest_fence BIGINT NOT NULL
-- Rewritten by each commit: room for that on its page.
) WITH (fillfactor = 10);
INSERT INTO leadership VALUES (1, 0, '', 0, 0, 0, 0, 0);

CREATE TABLE job (
    id BIGINT PRIMARY KEY,
    submitter TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    submitted_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    body TEXT NOT NULL
);
CREATE INDEX job_state ON job (state, queue, id);
CREATE INDEX job_submitter ON job (submitter, id);

-- Every node that ever had a part of a job.
CREATE TABLE job_node (
    node TEXT NOT NULL,
    job BIGINT NOT NULL,
    PRIMARY KEY (node, job)
);

CREATE TABLE submission (
    submitter TEXT NOT NULL,
    name TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    jobs TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    PRIMARY KEY (submitter, name)
);
CREATE INDEX submission_at ON submission (at_ms);

CREATE TABLE node (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    serial TEXT UNIQUE,
    body TEXT NOT NULL
);

CREATE TABLE queue (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
);

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    expires_ms BIGINT NOT NULL,
    used_by TEXT,
    body TEXT NOT NULL
);

CREATE TABLE revocation (
    serial TEXT PRIMARY KEY,
    node TEXT,
    at_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    why TEXT
);

CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
);

-- Append-only.
CREATE TABLE event (
    seq BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    kind TEXT NOT NULL,
    job BIGINT,
    node TEXT,
    actor TEXT,
    body TEXT
);
CREATE INDEX event_job ON event (job, seq) WHERE job IS NOT NULL;
CREATE INDEX event_node ON event (node, seq) WHERE node IS NOT NULL;

CREATE TABLE orphan (
    job BIGINT NOT NULL REFERENCES job (id),
    attempt BIGINT NOT NULL,
    fence BIGINT NOT NULL,
    node TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (job, attempt, fence, node)
);
