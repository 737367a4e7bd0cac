-- What a task is for, in one line, since somebody has said it anew; NULL: as its spec, else its title has it.
ALTER TABLE tasks ADD COLUMN intent_line text
    CONSTRAINT tasks_intent_line_check CHECK (char_length(intent_line) BETWEEN 1 AND 200 AND intent_line !~ '[\u0001-\u001f\u007f]');

-- How far tasks have come, as somebody said: the last ones of each. The journal has them all.
CREATE TABLE milestones (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id   uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    -- Number of the attempt within which it was said; NULL: outside of any.
    attempt   integer,
    -- Empty: anybody within the attempt.
    user_name text NOT NULL,
    said_at   timestamptz NOT NULL,
    text      text NOT NULL,
    CONSTRAINT milestones_text_check CHECK (char_length(text) BETWEEN 1 AND 500 AND text !~ '[\u0001-\u001f\u007f]'),
    CONSTRAINT milestones_said_check CHECK (attempt IS NOT NULL OR user_name <> '')
);
CREATE INDEX milestones_by_task ON milestones (task_id, id);

-- Whether the journal keeps what people type into agents' terminals.
ALTER TABLE projects ADD COLUMN record_typing boolean NOT NULL DEFAULT false;
