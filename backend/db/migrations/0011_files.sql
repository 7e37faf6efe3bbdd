-- All outputs of a prediction are kept, also those that could not be looked into. What was completed before has one file
-- that could be.

ALTER TABLE generations ADD COLUMN media_state TEXT;
ALTER TABLE generations ADD COLUMN media_why TEXT;
ALTER TABLE generations ADD COLUMN more_files TEXT;
