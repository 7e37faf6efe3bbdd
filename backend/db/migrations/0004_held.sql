-- What a restore holds does not count against a provider's limit, and what was stored before a restore is never swept.

ALTER TABLE generations ADD COLUMN held_at BIGINT;

DROP INDEX generations_in_flight;
CREATE INDEX generations_in_flight ON generations (provider, client_id)
  WHERE status IN ('submitting', 'unclear', 'processing') AND held_at IS NULL;

CREATE TABLE restores (
  restored_at BIGINT PRIMARY KEY,
  taken_at BIGINT NOT NULL
);
