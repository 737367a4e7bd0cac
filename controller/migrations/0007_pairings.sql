-- Who was let sit beside which agent.

-- Parts of `pair`, for people and tokens that are to have one without the others. Whoever is `pair` keeps all three.
ALTER TYPE role ADD VALUE 'driver' BEFORE 'pair';
ALTER TYPE role ADD VALUE 'shell' BEFORE 'pair';
ALTER TYPE role ADD VALUE 'forwarder' BEFORE 'pair';

CREATE TYPE pair_right AS ENUM ('observe', 'drive', 'shell', 'forward');

CREATE TABLE pairings (
    id         uuid PRIMARY KEY,
    attempt_id uuid NOT NULL REFERENCES attempts ON DELETE CASCADE,
    user_id    uuid NOT NULL REFERENCES users,
    -- By which it was opened; what it lets do ends with that.
    token_id   uuid NOT NULL REFERENCES tokens,
    rights     pair_right[] NOT NULL CHECK (cardinality(rights) > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    -- No session is begun with it from then on; those that were go on.
    expires_at timestamptz NOT NULL,
    -- Taken back: nothing goes on.
    closed_at  timestamptz,
    closed_by  text,
    -- What a seat refers to.
    CONSTRAINT pairings_attempt_key UNIQUE (id, attempt_id),
    CONSTRAINT pairings_window_check CHECK (created_at < expires_at),
    CONSTRAINT pairings_closed_check CHECK ((closed_at IS NULL) = (closed_by IS NULL) AND closed_at >= created_at)
);
CREATE INDEX pairings_by_attempt ON pairings (attempt_id);
-- Those who sat there at the end look on for a while.
CREATE INDEX attempts_ended ON attempts (executor_id, ended_at) WHERE ended_at IS NOT NULL;

ALTER TABLE executors
    -- Where ssh reaches it by itself; empty: through its own connections alone. NULL: it says nothing of ssh.
    ADD COLUMN ssh_address text,
    -- Fingerprint of the key that was last certified for its ssh.
    ADD COLUMN host_key    text;
