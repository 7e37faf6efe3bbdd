-- Clients are told by webhooks: where, what is still to be told, and every attempt.

ALTER TABLE clients ADD COLUMN webhook_secret TEXT;

CREATE TABLE webhook_endpoints (
  id TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients (id),
  url TEXT NOT NULL,
  events TEXT NOT NULL,
  secret TEXT NOT NULL,
  old_secret TEXT,
  old_secret_until BIGINT,
  failing_since BIGINT,
  disabled_at BIGINT,
  disabled_reason TEXT,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE INDEX webhook_endpoints_by_client ON webhook_endpoints (client_id, id);
CREATE INDEX webhook_endpoints_deleted ON webhook_endpoints (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhook_deliveries (
  id TEXT PRIMARY KEY,
  event_id TEXT NOT NULL,
  type TEXT NOT NULL,
  subject TEXT,
  generation_id TEXT REFERENCES generations (id) ON DELETE CASCADE,
  client_id TEXT NOT NULL REFERENCES clients (id),
  endpoint_id TEXT REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
  url TEXT NOT NULL,
  target TEXT NOT NULL,
  replay_of TEXT,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  event_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  due_at BIGINT NOT NULL,
  lease_owner TEXT,
  finished_at BIGINT,
  CONSTRAINT webhook_delivery_status_known CHECK (status IN ('pending', 'delivered', 'failed')),
  CONSTRAINT webhook_delivery_finished_iff_final CHECK ((finished_at IS NOT NULL) = (status <> 'pending'))
);
CREATE INDEX webhook_deliveries_by_client ON webhook_deliveries (client_id, id);
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_by_generation ON webhook_deliveries (generation_id) WHERE generation_id IS NOT NULL;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (target, due_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_leased ON webhook_deliveries (client_id, target) WHERE lease_owner IS NOT NULL;

CREATE TABLE webhook_attempts (
  delivery_id TEXT NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  began_at BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  status_code INTEGER,
  answer TEXT,
  error TEXT,
  PRIMARY KEY (delivery_id, number)
);
