-- Who may do what, who has joined, and who did what.

CREATE TYPE role AS ENUM ('viewer', 'operator', 'pair', 'maintainer', 'admin');

CREATE TABLE users (
    id         uuid PRIMARY KEY,
    -- Never given to somebody else: what a removed user did keeps their name.
    -- Nor one by which the record calls who is no user.
    name       text NOT NULL CONSTRAINT users_name_key UNIQUE
        CHECK (name ~ '^[a-z0-9][a-z0-9._@+-]{0,63}$' AND name NOT IN ('host', 'controller')),
    email      text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);

CREATE TABLE role_bindings (
    user_id    uuid NOT NULL REFERENCES users,
    -- NULL: every project.
    project_id uuid REFERENCES projects,
    role       role NOT NULL,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT now()
);
-- One of every project is one, too; servers before 15 know no NULLS NOT DISTINCT.
CREATE UNIQUE INDEX role_bindings_key ON role_bindings (user_id, role, coalesce(project_id, '00000000-0000-0000-0000-000000000000'));

CREATE TABLE tokens (
    id             uuid PRIMARY KEY,
    user_id        uuid NOT NULL REFERENCES users,
    name           text NOT NULL DEFAULT '',
    -- SHA-256 of the 256 random bits.
    digest         bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    -- Whether it is limited to what token_scopes lists; without, it is all that its owner may.
    scoped         boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz,
    revoked_at     timestamptz,
    last_used_at   timestamptz,
    last_used_from text NOT NULL DEFAULT ''
);
CREATE INDEX tokens_user_key ON tokens (user_id);

CREATE TABLE token_scopes (
    token_id   uuid NOT NULL REFERENCES tokens ON DELETE CASCADE,
    project_id uuid REFERENCES projects,
    role       role NOT NULL
);
CREATE UNIQUE INDEX token_scopes_key ON token_scopes (token_id, role, coalesce(project_id, '00000000-0000-0000-0000-000000000000'));

CREATE TABLE join_tokens (
    id         uuid PRIMARY KEY,
    digest     bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
    pool       text NOT NULL,
    labels     jsonb NOT NULL DEFAULT '{}',
    uses       integer NOT NULL DEFAULT 1 CHECK (uses > 0),
    used       integer NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND uses),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);

-- Who joined with what: a lost answer is given again, and uses nothing up.
CREATE TABLE joins (
    id          uuid PRIMARY KEY,
    token_id    uuid NOT NULL REFERENCES join_tokens,
    executor_id uuid NOT NULL REFERENCES executors,
    key         bytea NOT NULL CHECK (octet_length(key) = 32),
    joined_at   timestamptz NOT NULL DEFAULT now()
);

-- The certificate that an executor has; see core's enrolment.
ALTER TABLE executors
    ADD COLUMN key        bytea CHECK (octet_length(key) = 32),
    ADD COLUMN generation bigint NOT NULL DEFAULT 0 CHECK (generation >= 0),
    ADD COLUMN renewal    uuid,
    ADD COLUMN certified_until timestamptz,
    -- The version of the authority that has signed it, so that one is not retired that somebody still needs.
    ADD COLUMN authority  bytea CHECK (octet_length(authority) = 32),
    -- Whom it was told to trust with that, so that none begins to certify whom somebody does not know yet.
    ADD COLUMN trusted    bytea[] NOT NULL DEFAULT '{}',
    ADD COLUMN unseparated    text NOT NULL DEFAULT '',
    ADD COLUMN closes_network boolean NOT NULL DEFAULT false,
    ADD COLUMN separated_by   text NOT NULL DEFAULT '',
    -- By what it holds attempts to limits; empty words: by nothing. NULL: it does not say.
    ADD COLUMN counters       jsonb;
-- Until now the account that it ran as; from now on the user who made its join token.
UPDATE executors SET owner = '';

-- Whose tasks they are is part of what an executor must fit: a class has no rest that is passed over task by task.
ALTER TABLE classes
    ADD COLUMN project_id uuid REFERENCES projects,
    ADD COLUMN requester  text NOT NULL DEFAULT '';
INSERT INTO classes (digest, pool, requirements, agent, executor_id, project_id, requester)
    SELECT sha256(convert_to(concat_ws(' ', c.id, COALESCE(t.project_id::text, '-'), t.created_by), 'UTF8')),
           c.pool, c.requirements, c.agent, c.executor_id, t.project_id, t.created_by
    FROM (SELECT DISTINCT class_id, project_id, created_by FROM tasks) t JOIN classes c ON c.id = t.class_id;
UPDATE tasks t SET class_id = c.id FROM classes c
    WHERE c.digest = sha256(convert_to(concat_ws(' ', t.class_id, COALESCE(t.project_id::text, '-'), t.created_by), 'UTF8'));
DELETE FROM classes c WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.class_id = c.id);

CREATE TABLE locks (
    id          uuid PRIMARY KEY,
    user_id     uuid REFERENCES users,
    executor_id uuid REFERENCES executors,
    token_id    uuid REFERENCES tokens,
    reason      text NOT NULL DEFAULT '',
    locked_by   text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,
    lifted_at   timestamptz,
    CHECK (num_nonnulls(user_id, executor_id, token_id) = 1)
);
CREATE INDEX locks_standing_key ON locks (created_at) WHERE lifted_at IS NULL;

-- Executors of one name, and whose tasks they take. A pool without a row takes everybody's.
CREATE TABLE pools (
    name      text PRIMARY KEY,
    network   text NOT NULL DEFAULT 'host' CHECK (network IN ('host', 'none')),
    memory    bigint CHECK (memory > 0),
    processes integer CHECK (processes > 0),
    -- In thousandths of a processor.
    cpu       integer CHECK (cpu > 0)
);
CREATE TABLE pool_projects (
    pool       text NOT NULL REFERENCES pools ON DELETE CASCADE,
    project_id uuid NOT NULL REFERENCES projects,
    PRIMARY KEY (pool, project_id)
);
CREATE TABLE pool_users (
    pool    text NOT NULL REFERENCES pools ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users,
    PRIMARY KEY (pool, user_id)
);

-- Who did what, written in the transaction that does it. Acts do not wait for each other: the chain is made afterwards,
-- in the order in which they were committed.
CREATE TABLE audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    token      text NOT NULL DEFAULT '',
    address    text NOT NULL DEFAULT '',
    action     text NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
    subject    text NOT NULL DEFAULT '',
    project_id uuid,
    details    jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE audit_chain (
    sequence bigint PRIMARY KEY CHECK (sequence > 0),
    entry    bigint NOT NULL UNIQUE REFERENCES audit,
    -- SHA-256 over the hash before it and the entry.
    hash     bytea NOT NULL CHECK (octet_length(hash) = 32)
);

-- Nobody changes or removes what was written, not even its owner by accident.
CREATE FUNCTION audit_stands() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: the audit record is only ever added to', TG_OP, TG_TABLE_NAME;
END $$;
CREATE TRIGGER audit_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON audit EXECUTE FUNCTION audit_stands();
CREATE TRIGGER audit_chain_stands BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_chain EXECUTE FUNCTION audit_stands();
