-- A task that goes on in the workspace of an earlier attempt: its class then names the one executor that has it, so that no
-- other placement looks at it.
ALTER TABLE classes ADD COLUMN executor_id uuid REFERENCES executors;
ALTER TABLE tasks ADD COLUMN workspace_of uuid REFERENCES attempts DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX tasks_by_workspace ON tasks (workspace_of) WHERE workspace_of IS NOT NULL AND ended_at IS NULL;

-- Made from an attempt that was taken over, which does not say what its project is known by: root_commit is the attempt's base
-- until a person comes with the repository.
ALTER TABLE projects ADD COLUMN adopted boolean NOT NULL DEFAULT false;

-- Attempts that an executor has, this database does not know, and a person wants taken over.
CREATE TABLE adoptions (
    executor_id uuid NOT NULL REFERENCES executors,
    attempt_id  uuid NOT NULL,
    -- Of the newest request that asked for it.
    request_id  uuid NOT NULL,
    wanted_by   text NOT NULL,
    wanted_at   timestamptz NOT NULL DEFAULT now(),
    -- What became of it: the task that has it, or why none does. Neither: the executor has not handed its spec in yet.
    task_id     uuid REFERENCES tasks ON DELETE CASCADE,
    refusal     text,
    PRIMARY KEY (executor_id, attempt_id),
    CONSTRAINT adoptions_end_check CHECK (task_id IS NULL OR refusal IS NULL)
);
CREATE INDEX adoptions_by_request ON adoptions (request_id);
