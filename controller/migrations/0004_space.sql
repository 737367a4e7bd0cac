-- What an executor takes of its disk and what it may take, in bytes; NULL: it has not said.
ALTER TABLE executors ADD COLUMN disk_used bigint CHECK (disk_used >= 0), ADD COLUMN disk_budget bigint CHECK (disk_budget >= 0);
-- When retention dropped the attempt's log. Its length stays.
ALTER TABLE attempts ADD COLUMN log_dropped_at timestamptz;
CREATE INDEX attempts_retention ON attempts (ended_at) WHERE log_dropped_at IS NULL AND ended_at IS NOT NULL;
