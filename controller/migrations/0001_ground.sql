-- The ground. Enums, CHECKs and unique indexes repeat the invariants of controller/core: an illegal row cannot exist.
-- Constraint names are part of the contract with store/: a violation is mapped by name to the domain error that it means.

CREATE TABLE cluster (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    id         uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The last id that retention has dropped from the journal.
    journal_floor bigint NOT NULL DEFAULT 0
);
INSERT INTO cluster (id) VALUES (gen_random_uuid());

CREATE TYPE task_intent AS ENUM ('run', 'hold', 'cancel');
CREATE TYPE review_state AS ENUM ('none', 'needed', 'accepted', 'merged', 'rejected');
CREATE TYPE attempt_state AS ENUM ('offered', 'accepted', 'preparing', 'running', 'finalizing', 'ended');
CREATE TYPE turn_state AS ENUM ('working', 'idle', 'asking', 'limited', 'parked');
CREATE TYPE ask_kind AS ENUM ('question', 'permission');
CREATE TYPE liveness AS ENUM ('connected', 'unreachable', 'lost');
CREATE TYPE outcome AS ENUM ('completed', 'failed', 'cancelled', 'fenced');
CREATE TYPE on_lost AS ENUM ('wait', 'retry', 'fail');
CREATE TYPE shown_state AS ENUM (
    'queued', 'starting', 'running', 'waiting', 'idle', 'paused', 'limited', 'needs_review', 'accepted', 'merged',
    'rejected', 'completed', 'failed', 'lost', 'cancelled');

CREATE TABLE projects (
    id             uuid PRIMARY KEY,
    name           text NOT NULL CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    root_commit    text NOT NULL CHECK (root_commit ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
    remote         text NOT NULL DEFAULT '',
    default_agent  text NOT NULL DEFAULT '',
    commit_changes boolean NOT NULL DEFAULT true,
    -- Raised with every change of its refs or packs: tells a cache that it is old.
    git_revision   bigint NOT NULL DEFAULT 0,
    created_at     timestamptz NOT NULL DEFAULT now(),
    removed_at     timestamptz
);
CREATE UNIQUE INDEX projects_name_key ON projects (name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX projects_identity_key ON projects (root_commit, remote) WHERE removed_at IS NULL;

CREATE TABLE executors (
    id            uuid PRIMARY KEY,
    name          text NOT NULL,
    pool          text NOT NULL,
    labels        jsonb NOT NULL DEFAULT '{}',
    agents        text[] NOT NULL DEFAULT '{}',
    default_agent text,
    slots         integer NOT NULL CHECK (slots BETWEEN 0 AND 10000),
    separates     boolean NOT NULL DEFAULT false,
    owner         text NOT NULL DEFAULT '',
    hostname      text NOT NULL DEFAULT '',
    version       text NOT NULL DEFAULT '',
    notes         text[] NOT NULL DEFAULT '{}',
    unknown       uuid[] NOT NULL DEFAULT '{}',
    -- The session that may write for this executor: raised at each connect, the newest wins.
    epoch         bigint NOT NULL DEFAULT 0,
    instance      uuid,
    -- Why it takes no new work, in its own words.
    closed_reason text,
    drained       boolean NOT NULL DEFAULT false,
    liveness      liveness NOT NULL DEFAULT 'connected',
    connected_at  timestamptz NOT NULL DEFAULT now(),
    last_seen     timestamptz NOT NULL DEFAULT now(),
    removed_at    timestamptz
);
CREATE UNIQUE INDEX executors_name_key ON executors (name) WHERE removed_at IS NULL;

-- What tasks need of an executor. Unplaceable classes are passed over without looking at their tasks.
CREATE TABLE classes (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest       bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    pool         text NOT NULL,
    requirements jsonb NOT NULL,
    -- NULL: a plain command; '': the executor's default.
    agent        text
);

CREATE TABLE tasks (
    id              uuid PRIMARY KEY,
    number          bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    revision        bigint NOT NULL DEFAULT 1,
    project_id      uuid REFERENCES projects,
    class_id        bigint NOT NULL REFERENCES classes,
    title           text NOT NULL,
    branch          text NOT NULL DEFAULT '',
    base            text CHECK (base ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
    labels          jsonb NOT NULL DEFAULT '{}',
    priority        integer NOT NULL DEFAULT 0 CHECK (priority BETWEEN -1000 AND 1000),
    created_by      text NOT NULL DEFAULT '',
    -- An encoded sculpt.v1.TaskSpec; kept apart from what lists read.
    spec            bytea NOT NULL,

    intent          task_intent NOT NULL DEFAULT 'run',
    review          review_state NOT NULL DEFAULT 'none',
    review_head     text,
    merge_commit    text,
    reject_reason   text,
    on_lost         on_lost NOT NULL DEFAULT 'wait',
    lost_after      interval NOT NULL DEFAULT '15 minutes',

    -- Queued: the number of the attempt to come. Otherwise the newest attempt.
    next_attempt    integer CHECK (next_attempt >= 1),
    attempt_id      uuid,

    -- The projection of the machines, written with them: what lists filter by.
    shown           shown_state NOT NULL DEFAULT 'queued',
    queued_at       timestamptz NOT NULL DEFAULT now(),
    not_before      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    ended_at        timestamptz,

    CONSTRAINT tasks_run_check CHECK ((next_attempt IS NULL) <> (attempt_id IS NULL)),
    CONSTRAINT tasks_project_base_check CHECK ((project_id IS NULL) = (base IS NULL)),
    CONSTRAINT tasks_review_check CHECK (
        (review_head IS NOT NULL) = (review IN ('needed', 'accepted'))
        AND (merge_commit IS NOT NULL) = (review = 'merged')
        AND (reject_reason IS NOT NULL) = (review = 'rejected'))
);
CREATE INDEX tasks_queue ON tasks (class_id, priority DESC, queued_at, number)
    WHERE next_attempt IS NOT NULL AND intent = 'run';
CREATE INDEX tasks_by_state ON tasks (shown, number DESC);
CREATE INDEX tasks_by_project ON tasks (project_id, number DESC);
CREATE INDEX tasks_by_creator ON tasks (created_by, number DESC);
CREATE INDEX tasks_by_label ON tasks USING gin (labels jsonb_path_ops);

CREATE TABLE attempts (
    id              uuid PRIMARY KEY,
    task_id         uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    number          integer NOT NULL CHECK (number >= 1),
    executor_id     uuid NOT NULL REFERENCES executors,
    state           attempt_state NOT NULL DEFAULT 'offered',
    spec_read       boolean NOT NULL DEFAULT false,
    turn            turn_state,
    ask             ask_kind,
    question        text,
    limited_until   timestamptz,
    liveness        liveness NOT NULL DEFAULT 'connected',
    silent_since    timestamptz,
    outcome         outcome,
    cause           text,
    message         text,
    exit_code       integer,
    exit_signal     integer,
    head            text CHECK (head ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
    pid             bigint NOT NULL DEFAULT 0,
    tmux_socket     text NOT NULL DEFAULT '',
    notes           text[] NOT NULL DEFAULT '{}',
    -- SHA-256 of the encoded AttemptSpec.
    spec_digest     bytea NOT NULL,
    -- Set in the transaction that takes the task away from it: what it says afterwards counts no more.
    fenced_at       timestamptz,
    -- Reports applied, 1 to this.
    report_sequence bigint NOT NULL DEFAULT 0,
    -- The log stands up to here without a hole.
    log_bytes       bigint NOT NULL DEFAULT 0,
    -- What the executor said its length is; the log is complete when log_bytes reaches it.
    log_final       bigint,
    -- Segments in the blob store cover everything below.
    log_sealed      bigint NOT NULL DEFAULT 0,
    released_at     timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    ended_at        timestamptz,

    CONSTRAINT attempts_number_key UNIQUE (task_id, number),
    CONSTRAINT attempts_log_check CHECK (0 <= log_sealed AND log_sealed <= log_bytes),
    CONSTRAINT attempts_final_check CHECK (log_final IS NULL OR log_bytes <= log_final),
    CONSTRAINT attempts_end_check CHECK ((state = 'ended') = (outcome IS NOT NULL) AND (state = 'ended') = (ended_at IS NOT NULL)),
    CONSTRAINT attempts_cause_check CHECK ((cause IS NOT NULL) = (outcome IS NOT DISTINCT FROM 'failed')),
    CONSTRAINT attempts_turn_check CHECK ((turn IS NOT NULL) = (state = 'running')),
    CONSTRAINT attempts_ask_check CHECK ((turn IS NOT DISTINCT FROM 'asking') = (ask IS NOT NULL)),
    CONSTRAINT attempts_silence_check CHECK ((liveness = 'connected') = (silent_since IS NULL)),
    CONSTRAINT attempts_exit_check CHECK (exit_code IS NULL OR exit_signal IS NULL)
);
-- One live attempt per task: a second one cannot be written while the first can still publish.
CREATE UNIQUE INDEX attempts_live_key ON attempts (task_id) WHERE state <> 'ended' AND fenced_at IS NULL;
CREATE INDEX attempts_by_executor ON attempts (executor_id) WHERE released_at IS NULL;
ALTER TABLE tasks ADD CONSTRAINT tasks_attempt_fkey FOREIGN KEY (attempt_id) REFERENCES attempts DEFERRABLE INITIALLY DEFERRED;

CREATE INDEX attempts_unsealed ON attempts (id) WHERE log_sealed < log_bytes;

-- The encoded AttemptSpec as it was at the claim: what the digest is of. Apart, so that a report does not rewrite it.
CREATE TABLE attempt_specs (
    attempt_id uuid PRIMARY KEY REFERENCES attempts ON DELETE CASCADE,
    body       bytea NOT NULL
);

-- The journal. A reader passes a gap in the ids only when no transaction that may fill it is left (store/events.rs).
CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text NOT NULL,
    task_id     uuid,
    task_number bigint,
    attempt     integer,
    executor_id uuid,
    revision    bigint,
    shown       shown_state,
    actor       text NOT NULL DEFAULT '',
    data        jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE INDEX events_by_task ON events (task_id, id) WHERE task_id IS NOT NULL;

-- The live tail of logs; older parts stand sealed in the blob store.
CREATE TABLE log_chunks (
    attempt_id uuid NOT NULL,
    start      bigint NOT NULL CHECK (start >= 0),
    at         timestamptz NOT NULL DEFAULT now(),
    data       bytea NOT NULL CHECK (octet_length(data) > 0),
    -- Encoded sculpt.v1.LogFrame messages, each preceded by its length as a varint.
    frames     bytea NOT NULL,
    PRIMARY KEY (attempt_id, start, at)
) PARTITION BY RANGE (at);
CREATE TABLE log_chunks_default PARTITION OF log_chunks DEFAULT;
-- Terminal output is compressed once, when it is sealed.
ALTER TABLE log_chunks ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE log_segments (
    attempt_id uuid NOT NULL REFERENCES attempts ON DELETE CASCADE,
    start      bigint NOT NULL CHECK (start >= 0),
    finish     bigint NOT NULL CHECK (finish > start),
    blob       text NOT NULL,
    PRIMARY KEY (attempt_id, start)
);

-- Truth of git: refs are rows moved by compare-and-swap, packs are immutable blobs.
CREATE TABLE refs (
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    name       text NOT NULL CHECK (name LIKE 'refs/%' AND octet_length(name) <= 255),
    target     text NOT NULL CHECK (target ~ '^([0-9a-f]{40}|[0-9a-f]{64})$'),
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (project_id, name)
);
CREATE INDEX refs_by_target ON refs (project_id, target);

CREATE TABLE packs (
    id         uuid PRIMARY KEY,
    project_id uuid NOT NULL REFERENCES projects ON DELETE CASCADE,
    blob       text NOT NULL UNIQUE,
    -- The name git gives it: SHA-1 of its sorted object names.
    checksum   text NOT NULL,
    bytes      bigint NOT NULL CHECK (bytes > 0),
    objects    bigint NOT NULL CHECK (objects >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX packs_by_project ON packs (project_id, created_at);

-- Blobs that no row names any more, deleted after a while so that a replica in the middle of reading is not hurt.
CREATE TABLE dead_blobs (
    blob    text PRIMARY KEY,
    since   timestamptz NOT NULL DEFAULT now()
);

-- Mutations that were done, by the caller's request id.
CREATE TABLE requests (
    id         uuid PRIMARY KEY,
    method     text NOT NULL,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32),
    -- What it made or moved.
    subject    uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX requests_by_age ON requests (created_at);

-- What a person says to an agent.
CREATE TABLE inbox (
    attempt_id uuid NOT NULL REFERENCES attempts ON DELETE CASCADE,
    sequence   bigint NOT NULL CHECK (sequence >= 1),
    kind       text NOT NULL,
    body       bytea NOT NULL,
    state      text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'typed', 'submitted', 'seen', 'uncertain')),
    created_by text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (attempt_id, sequence)
);

-- Singleton duties of replicas. The term rises with every change of holder.
CREATE TABLE duties (
    name   text PRIMARY KEY,
    holder uuid NOT NULL,
    term   bigint NOT NULL DEFAULT 1,
    until  timestamptz NOT NULL
);
