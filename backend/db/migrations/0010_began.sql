-- Whether a prediction had begun decides whether a canceled one may be billed. What the provider says of the bill after the
-- end counts too, and clients who are told of the end again are told what they were told before.

ALTER TABLE generations ADD COLUMN began_at BIGINT;
ALTER TABLE generations ADD COLUMN bill_told TEXT;
