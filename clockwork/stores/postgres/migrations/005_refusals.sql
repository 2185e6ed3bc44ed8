-- The reason of the latest refusal of a record, for people.
ALTER TABLE rows ADD COLUMN retry_refusal text;
ALTER TABLE outcomes ADD COLUMN last_refusal text;
