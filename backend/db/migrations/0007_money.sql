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
CREATE INDEX usage_days_by_day ON usage_days (day);

-- What is there already: reserved while it is unfinished; spent as it was billed, or may have been.
INSERT INTO balances (owner_id, reserved_micros, settled_micros)
SELECT client_id,
  SUM(CASE WHEN status IN ('completed', 'failed', 'canceled') THEN 0 ELSE COALESCE(cost_estimated_micros, 0) END),
  SUM(CASE WHEN status NOT IN ('completed', 'failed', 'canceled') THEN 0
    WHEN cost_actual_micros IS NOT NULL THEN cost_actual_micros
    WHEN status = 'completed' OR possibly_charged = 1 THEN COALESCE(cost_estimated_micros, 0) ELSE 0 END)
FROM generations GROUP BY client_id;

INSERT INTO balances (owner_id, reserved_micros, settled_micros)
SELECT campaign_id,
  SUM(CASE WHEN status IN ('completed', 'failed', 'canceled') THEN 0 ELSE COALESCE(cost_estimated_micros, 0) END),
  SUM(CASE WHEN status NOT IN ('completed', 'failed', 'canceled') THEN 0
    WHEN cost_actual_micros IS NOT NULL THEN cost_actual_micros
    WHEN status = 'completed' OR possibly_charged = 1 THEN COALESCE(cost_estimated_micros, 0) ELSE 0 END)
FROM generations GROUP BY campaign_id;

INSERT INTO usage_days (client_id, campaign_id, day, kind, provider, model, key_id, status, deleted,
  generations, media_ms, bytes, estimated_micros, actual_micros)
SELECT client_id, campaign_id, created_at / 86400000, kind, provider, model, COALESCE(key_id, ''), status, 0,
  COUNT(*), SUM(CAST(ROUND(COALESCE(duration_s, 0) * 1000 + 0.001) AS BIGINT)), SUM(COALESCE(bytes, 0)),
  SUM(COALESCE(cost_estimated_micros, 0)),
  SUM(CASE WHEN cost_actual_micros IS NOT NULL THEN cost_actual_micros
    WHEN status = 'completed' OR possibly_charged = 1 THEN COALESCE(cost_estimated_micros, 0) ELSE 0 END)
FROM generations WHERE status IN ('completed', 'failed', 'canceled')
GROUP BY client_id, campaign_id, created_at / 86400000, kind, provider, model, COALESCE(key_id, ''), status;
