-- Whether a prediction had begun decides whether a canceled one may be billed.

ALTER TABLE generations ADD COLUMN began_at BIGINT;
