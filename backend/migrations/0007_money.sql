-- What is reserved and what was spent, by campaign and client, and what was done each day.

ALTER TABLE clients ADD COLUMN budget_micros BIGINT;
ALTER TABLE campaigns ADD COLUMN budget_micros BIGINT;

CREATE TABLE balances (
  owner_id TEXT PRIMARY KEY,
  reserved_micros BIGINT NOT NULL,
  settled_micros BIGINT NOT NULL,
  warned_micros BIGINT
);

CREATE TABLE usage_days (
  client_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  day BIGINT NOT NULL,
  kind TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  key_id TEXT NOT NULL,
  status TEXT NOT NULL,
  deleted INTEGER NOT NULL,
  generations BIGINT NOT NULL,
  media_ms BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  estimated_micros BIGINT NOT NULL,
  actual_micros BIGINT NOT NULL,
  PRIMARY KEY (client_id, campaign_id, day, kind, provider, model, key_id, status, deleted)
);
