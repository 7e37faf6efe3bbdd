-- The whole current schema. A new database is made from this file; an older one is brought here by
-- backend/migrations. It runs unchanged on SQLite and PostgreSQL: ids are UUIDv7 as TEXT, times are
-- BIGINT milliseconds since 1970 UTC, flags are 0 or 1, JSON is TEXT, money is millionths of a dollar.

CREATE TABLE schema_migrations (
  version BIGINT PRIMARY KEY,
  name TEXT NOT NULL,
  checksum TEXT NOT NULL,      -- SHA-256 of the file that was run: a changed migration is noticed
  applied_at BIGINT NOT NULL
);

CREATE TABLE clients (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT             -- gone for everybody at once; its rows and bytes go in small bites
);
CREATE INDEX clients_deleted ON clients (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE campaigns (
  id TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients (id),
  name TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT
);
CREATE INDEX campaigns_by_client ON campaigns (client_id, id);
CREATE INDEX campaigns_deleted ON campaigns (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  client_id TEXT REFERENCES clients (id),
  name TEXT NOT NULL,
  prefix TEXT NOT NULL UNIQUE,  -- public, finds the row: at most one bcrypt check a request
  hash TEXT NOT NULL,
  admin INTEGER NOT NULL DEFAULT 0,
  image_limit TEXT,             -- such as 30/minute; NULL takes the setting
  video_limit TEXT,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  CONSTRAINT admin_is_flag CHECK (admin IN (0, 1)),
  CONSTRAINT admin_iff_no_client CHECK ((admin = 1) = (client_id IS NULL))
);
CREATE INDEX api_keys_by_client ON api_keys (client_id, id);

CREATE TABLE assets (
  id TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients (id),
  kind TEXT NOT NULL,
  name TEXT,                    -- what the client called it; shown, never used as a path
  file_name TEXT NOT NULL,
  content_type TEXT NOT NULL,   -- what the bytes are, not what was claimed
  bytes BIGINT NOT NULL,
  sha256 TEXT NOT NULL,
  width BIGINT,
  height BIGINT,
  duration_s DOUBLE PRECISION,
  created_at BIGINT NOT NULL,
  CONSTRAINT asset_kind_known CHECK (kind IN ('image', 'video', 'audio'))
);
CREATE INDEX assets_by_client ON assets (client_id, id);

CREATE TABLE generations (
  id TEXT PRIMARY KEY,          -- ours; in the webhook URL, so a webhook finds its row even if we never saw the answer
  kind TEXT NOT NULL,
  status TEXT NOT NULL,         -- moved only by generations.move, which names the allowed sources
  client_id TEXT NOT NULL REFERENCES clients (id),
  campaign_id TEXT NOT NULL REFERENCES campaigns (id),
  key_id TEXT,
  batch_id TEXT,                -- shared by the copies of one request
  retry_of TEXT,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  prompt TEXT,
  source TEXT NOT NULL,         -- JSON: asset_id, image_id, video_id, frame, end_image
  params TEXT NOT NULL,         -- JSON: what the client chose, in our names
  metadata TEXT NOT NULL,
  webhook_url TEXT,             -- where the client wants to be told

  nonce TEXT NOT NULL,          -- in the webhook URL: proves that a submit of ours made the prediction
  provider_id TEXT,             -- theirs
  attempts INTEGER NOT NULL DEFAULT 0,  -- counted before the work, so a row that kills workers is noticed; 0 after it
  polls INTEGER NOT NULL DEFAULT 0,
  progress DOUBLE PRECISION,
  outputs TEXT NOT NULL DEFAULT '[]',   -- JSON: the provider's URLs; they expire
  outputs_expire_at BIGINT,
  cancel_requested_at BIGINT,
  cancel_sent_at BIGINT,
  possibly_charged INTEGER NOT NULL DEFAULT 0,

  file_name TEXT,               -- in our storage
  poster_name TEXT,
  content_type TEXT,
  bytes BIGINT,
  sha256 TEXT,
  width BIGINT,
  height BIGINT,
  duration_s DOUBLE PRECISION,

  cost_estimated_micros BIGINT,
  cost_actual_micros BIGINT,
  error_code TEXT,
  error_message TEXT,
  error_retryable INTEGER,

  created_at BIGINT NOT NULL,
  claimed_at BIGINT,            -- before anything was sent: where a search of the provider's list begins
  submitted_at BIGINT,
  deadline_at BIGINT,
  finished_at BIGINT,
  due_at BIGINT NOT NULL,       -- when a worker looks at it next; while one has it, when its lease ends
  lease_owner TEXT,             -- the worker that has it now; its writes are fenced by this name

  CONSTRAINT kind_known CHECK (kind IN ('image', 'video')),
  CONSTRAINT status_known CHECK (status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing', 'completed', 'failed', 'canceled')),
  CONSTRAINT finished_iff_final CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'canceled'))),
  CONSTRAINT completed_has_bytes CHECK (status <> 'completed' OR (file_name IS NOT NULL AND bytes > 0 AND sha256 IS NOT NULL AND content_type IS NOT NULL)),
  CONSTRAINT failed_has_reason CHECK ((status = 'failed') = (error_code IS NOT NULL)),
  CONSTRAINT processing_has_provider_id CHECK (status <> 'processing' OR provider_id IS NOT NULL),
  CONSTRAINT sent_was_claimed CHECK (status NOT IN ('submitting', 'unclear', 'processing', 'storing') OR claimed_at IS NOT NULL)
);
CREATE INDEX generations_by_client ON generations (client_id, id);
CREATE INDEX generations_by_client_kind ON generations (client_id, kind, id);
CREATE INDEX generations_by_campaign ON generations (campaign_id, id);
CREATE INDEX generations_by_campaign_kind ON generations (campaign_id, kind, id);
CREATE INDEX generations_due ON generations (status, due_at)
  WHERE status IN ('submitting', 'unclear', 'processing', 'storing');
CREATE INDEX generations_queued ON generations (provider, client_id, due_at)
  WHERE status = 'queued';
CREATE INDEX generations_in_flight ON generations (provider, client_id)
  WHERE status IN ('submitting', 'unclear', 'processing');
CREATE INDEX generations_waiting ON generations (id) WHERE status = 'waiting';
CREATE INDEX generations_by_provider_id ON generations (provider, provider_id)
  WHERE provider_id IS NOT NULL;
CREATE INDEX generations_leased ON generations (lease_owner)
  WHERE lease_owner IS NOT NULL;
CREATE INDEX generations_possibly_charged ON generations (id)
  WHERE possibly_charged = 1;

CREATE TABLE dependencies (     -- a waiting generation and the unfinished ones it needs
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  source_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  PRIMARY KEY (generation_id, source_id)
);
CREATE INDEX dependencies_by_source ON dependencies (source_id);

CREATE TABLE deliveries (       -- what providers told us, kept before it is believed or acted on
  id TEXT PRIMARY KEY,
  provider TEXT NOT NULL,
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  webhook_id TEXT NOT NULL,
  body TEXT NOT NULL,
  received_at BIGINT NOT NULL,
  handled_at BIGINT,
  attempts INTEGER NOT NULL DEFAULT 0,
  note TEXT,                    -- what became of it
  UNIQUE (generation_id, webhook_id)
);
CREATE INDEX deliveries_unhandled ON deliveries (id) WHERE handled_at IS NULL;

CREATE TABLE events (           -- written with the status; clients are told from here
  id TEXT PRIMARY KEY,
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  client_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  type TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  UNIQUE (generation_id, type),
  CONSTRAINT event_type_known CHECK (type IN ('generation.processing', 'generation.completed', 'generation.failed', 'generation.canceled'))
);
CREATE INDEX events_by_client ON events (client_id, id);

CREATE TABLE idempotency_keys (
  scope TEXT NOT NULL,          -- the client, or the admin key: one caller never meets another's
  key TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  status INTEGER,               -- NULL while the first request is still running
  body TEXT,
  location TEXT,
  running_until BIGINT,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE providers (        -- what all workers must know of a provider now
  name TEXT PRIMARY KEY,
  paused_until BIGINT NOT NULL,
  reason TEXT
);

CREATE TABLE workers (          -- who is alive
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  seen_at BIGINT NOT NULL
);

CREATE TABLE trash (            -- files whose rows are gone: removed later, so a crash leaves no row without its bytes
  file_name TEXT PRIMARY KEY,
  created_at BIGINT NOT NULL
);
