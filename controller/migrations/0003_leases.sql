-- The directory of attempts that the executor's newest session speaks for; NULL: it names none.
ALTER TABLE executors ADD COLUMN directory uuid;
-- The directory that an attempt's spec went to; NULL: nowhere yet, or to an executor that names none.
ALTER TABLE attempts ADD COLUMN directory uuid;
-- When that directory was last heard of, once another one speaks for the executor; NULL: as the executor itself.
ALTER TABLE attempts ADD COLUMN last_heard timestamptz;
