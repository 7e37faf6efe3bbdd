-- Who changed what is kept, and the client's own webhook secret is shown once and can be rotated.

ALTER TABLE clients ADD COLUMN webhook_secret_at BIGINT;
ALTER TABLE clients ADD COLUMN webhook_secret_shown_at BIGINT;
ALTER TABLE clients ADD COLUMN webhook_old_secret TEXT;
ALTER TABLE clients ADD COLUMN webhook_old_secret_until BIGINT;

CREATE TABLE audit (            -- who changed what: rows are added with the change, never updated, and go by age alone
  id TEXT PRIMARY KEY,
  at BIGINT NOT NULL,
  action TEXT NOT NULL,         -- such as key.created
  actor TEXT NOT NULL,
  actor_name TEXT,              -- of the key, or of the operating system's user
  key_id TEXT,
  key_prefix TEXT,              -- public; the row of the key may be gone
  address TEXT,
  request_id TEXT,
  object_type TEXT NOT NULL,
  object_id TEXT,
  client_id TEXT,               -- whose; no reference: the row outlives the client
  old_values TEXT,              -- JSON of the fields that changed, never a secret
  new_values TEXT,
  CONSTRAINT audit_actor_known CHECK (actor IN ('key', 'dev', 'cli', 'system')),
  CONSTRAINT audit_key_iff_by_key CHECK ((actor = 'key') = (key_id IS NOT NULL))
);
CREATE INDEX audit_by_action ON audit (action, id);
CREATE INDEX audit_by_client ON audit (client_id, id);
CREATE INDEX audit_by_key ON audit (key_id, id);
CREATE INDEX audit_by_object ON audit (object_id, id);
