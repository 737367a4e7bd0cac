-- What lists show of a spec that is too long for them; NULL: the whole of it. An encoded sculpt.v1.TaskSpec.
ALTER TABLE tasks ADD COLUMN brief bytea;
