-- The whole current schema. A new database is made from this file; an older one is brought here by
-- backend/db/migrations. It runs unchanged on SQLite and PostgreSQL: ids are UUIDv7 as TEXT, times are
-- BIGINT milliseconds since 1970 UTC, flags are 0 or 1, JSON is TEXT, money is millionths of a dollar.
--
-- SQLite takes a partial index only for a statement that has the condition of the index in it. So a statement that seems
-- to say something twice, such as "status = 'submitting' AND status IN (...)", does so for its index; see
-- tests/test_plans.py.

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
  deleted_at BIGINT,            -- gone for everybody at once; its rows and files go in small bites, to hold up nobody
  webhook_secret TEXT,          -- signs what is sent to a request's own webhook_url; made when it is first needed
  budget_micros BIGINT,         -- accepted work may not cost more; NULL: no limit
  webhook_secret_at BIGINT,     -- when it was made; NULL: before that was noted
  webhook_secret_shown_at BIGINT,  -- it is shown once
  webhook_old_secret TEXT,      -- it signs too up to webhook_old_secret_until, so that a receiver can change over
  webhook_old_secret_until BIGINT
);
CREATE INDEX clients_deleted ON clients (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE campaigns (
  id TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients (id),
  name TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT,
  budget_micros BIGINT
);
CREATE INDEX campaigns_by_client ON campaigns (client_id, id);
CREATE INDEX campaigns_deleted ON campaigns (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE api_keys (
  id TEXT PRIMARY KEY,
  client_id TEXT REFERENCES clients (id),
  name TEXT NOT NULL,
  prefix TEXT NOT NULL UNIQUE,  -- public, finds the row: at most one bcrypt check for each request
  hash TEXT NOT NULL,
  admin INTEGER NOT NULL DEFAULT 0,
  image_limit TEXT,             -- such as 30/minute; NULL takes the setting
  video_limit TEXT,
  created_at BIGINT NOT NULL,
  expires_at BIGINT,
  revoked_at BIGINT,
  campaign_id TEXT REFERENCES campaigns (id),  -- of requests that name none
  fingerprint INTEGER,          -- 16 bits of the key's SHA-256: most wrong keys are told by it, without a bcrypt check
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
  provider_id TEXT,             -- theirs; a prediction belongs to one generation
  attempts INTEGER NOT NULL DEFAULT 0,  -- counted before the work, so a row that kills workers is noticed; 0 after it, unless it was set aside
  polls INTEGER NOT NULL DEFAULT 0,
  progress DOUBLE PRECISION,
  outputs TEXT NOT NULL DEFAULT '[]',   -- JSON: the provider's URLs; they expire, Replicate's after an hour
  outputs_expire_at BIGINT,
  cancel_requested_at BIGINT,
  cancel_sent_at BIGINT,
  possibly_charged INTEGER NOT NULL DEFAULT 0,  -- 1: it ended without a result and may be on the bill all the same

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
  held_at BIGINT,               -- when a restore made it unclear; NULL as soon as more is known
  began_at BIGINT,              -- when the provider first said that it runs: from then on a cancel may cost
  bill_told TEXT,               -- JSON: the bill as it was when the end was told; NULL while that is still right
  media_state TEXT,             -- what we could make of the file above: read or unread; NULL counts as read
  media_why TEXT,               -- what there is to say about that
  more_files TEXT,              -- JSON: the other outputs, those that are missing too; NULL: there are none
  text_bytes BIGINT NOT NULL DEFAULT 0,  -- of the request, as counted in holdings
  file_bytes BIGINT NOT NULL DEFAULT 0,  -- of all its files, posters included, as counted in holdings
  provider_ref TEXT,            -- JSON: what the provider wants to be asked with beside its id; NULL: nothing
  account TEXT,                 -- which account of the provider has it, written when it is sent; NULL: the first one

  CONSTRAINT kind_known CHECK (kind IN ('image', 'video')),
  CONSTRAINT status_known CHECK (status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing', 'completed', 'failed', 'canceled')),
  CONSTRAINT finished_iff_final CHECK ((finished_at IS NOT NULL) = (status IN ('completed', 'failed', 'canceled'))),
  CONSTRAINT completed_has_bytes CHECK (status <> 'completed' OR (file_name IS NOT NULL AND bytes > 0 AND sha256 IS NOT NULL AND content_type IS NOT NULL)),
  CONSTRAINT failed_has_reason CHECK ((status = 'failed') = (error_code IS NOT NULL)),
  CONSTRAINT processing_has_provider_id CHECK (status <> 'processing' OR provider_id IS NOT NULL),
  CONSTRAINT sent_was_claimed CHECK (status NOT IN ('submitting', 'unclear', 'processing', 'storing') OR claimed_at IS NOT NULL)
);
-- Lists go by id, so each way to narrow a list that is used often has an index that ends with the id.
CREATE INDEX generations_by_client ON generations (client_id, id);
CREATE INDEX generations_by_client_kind ON generations (client_id, kind, id);
CREATE INDEX generations_by_campaign ON generations (campaign_id, id);
CREATE INDEX generations_by_campaign_kind ON generations (campaign_id, kind, id);
-- Without the queue: it may be long, and it is claimed client by client, by an index of its own.
CREATE INDEX generations_due ON generations (status, COALESCE(account, provider), due_at)
  WHERE status IN ('submitting', 'unclear', 'processing', 'storing');
-- In the order of a claim: outputs that expire first are fetched first. Sorting 50,000 rows took 150 ms at every look.
CREATE INDEX generations_storing ON generations (COALESCE(account, provider), COALESCE(outputs_expire_at, 0), due_at)
  WHERE status = 'storing';
CREATE INDEX generations_queued ON generations (provider, client_id, due_at)
  WHERE status = 'queued';
CREATE INDEX generations_in_flight ON generations (COALESCE(account, provider), client_id)
  WHERE status IN ('submitting', 'unclear', 'processing') AND held_at IS NULL;
CREATE INDEX generations_waiting ON generations (id) WHERE status = 'waiting';
-- Two rows with one prediction would have its result twice, and its bill. The second one is told, and stays unclear.
CREATE UNIQUE INDEX generations_by_provider_id ON generations (COALESCE(account, provider), provider_id)
  WHERE provider_id IS NOT NULL;
CREATE INDEX generations_leased ON generations (lease_owner)
  WHERE lease_owner IS NOT NULL;
CREATE INDEX generations_possibly_charged ON generations (id)
  WHERE possibly_charged = 1;
CREATE INDEX generations_set_aside ON generations (id)
  WHERE status = 'failed' AND attempts > 0;  -- what could not be worked on
-- Small, whatever a client has finished: usage and deletion look at what is unfinished only.
CREATE INDEX generations_unfinished ON generations (client_id, campaign_id)
  WHERE status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing');

CREATE TABLE dependencies (     -- a waiting generation and the unfinished ones it needs
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  source_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  PRIMARY KEY (generation_id, source_id)
);
CREATE INDEX dependencies_by_source ON dependencies (source_id);

CREATE TABLE releases (         -- what has ended while more waited for it than one transaction may change
  source_id TEXT PRIMARY KEY REFERENCES generations (id) ON DELETE CASCADE
);

CREATE TABLE sources (          -- what unfinished generations start from: it is not deleted while a provider may fetch it
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  source_id TEXT NOT NULL,      -- an asset or a generation
  campaign_id TEXT,             -- of the source, when it is a generation: that campaign stays too
  PRIMARY KEY (generation_id, source_id)
);
CREATE INDEX sources_by_source ON sources (source_id);
CREATE INDEX sources_by_campaign ON sources (campaign_id) WHERE campaign_id IS NOT NULL;

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
  text_bytes BIGINT NOT NULL DEFAULT 0,  -- of the body, as counted in holdings
  UNIQUE (generation_id, webhook_id)  -- providers send a webhook again when they saw no answer: it counts once
);
CREATE INDEX deliveries_unhandled ON deliveries (id) WHERE handled_at IS NULL;

CREATE TABLE events (           -- written with the status; clients are told from here
  id TEXT PRIMARY KEY,          -- grows in the order of the commits: who has seen one has seen all before it
  generation_id TEXT REFERENCES generations (id) ON DELETE CASCADE,
  client_id TEXT NOT NULL,
  campaign_id TEXT,             -- NULL when it is about the client's own budget
  type TEXT NOT NULL,
  subject TEXT,                 -- JSON of what it is about, when that is no generation
  created_at BIGINT NOT NULL,
  UNIQUE (generation_id, type),  -- nobody is told the same twice, when a webhook and a poll both saw it
  CONSTRAINT event_type_known CHECK (type IN ('generation.processing', 'generation.completed', 'generation.failed', 'generation.canceled', 'budget.warning')),
  CONSTRAINT event_of_generation_or_subject CHECK ((generation_id IS NULL) = (subject IS NOT NULL))
);
CREATE INDEX events_by_client ON events (client_id, id);
CREATE INDEX events_by_campaign ON events (campaign_id, id);

-- Whoever writes an event updates this row first and so holds it until the commit: ids grow in the order of commits.
CREATE TABLE event_clock (      -- the last event's id, also when that event is deleted: the next one is larger
  one INTEGER PRIMARY KEY,
  last_id TEXT NOT NULL,
  CONSTRAINT clock_is_one_row CHECK (one = 1)
);
INSERT INTO event_clock (one, last_id) VALUES (1, '');

CREATE TABLE webhook_endpoints (  -- where a client wants to be told
  id TEXT PRIMARY KEY,
  client_id TEXT NOT NULL REFERENCES clients (id),
  url TEXT NOT NULL,
  events TEXT NOT NULL,         -- JSON list of types; empty: all
  secret TEXT NOT NULL,         -- whsec_...: it signs, so it is kept as it is
  old_secret TEXT,              -- signs too until then, so that a receiver can change over
  old_secret_until BIGINT,
  failing_since BIGINT,         -- the first failure since the last success
  disabled_at BIGINT,
  disabled_reason TEXT,
  created_at BIGINT NOT NULL,
  deleted_at BIGINT             -- gone for everybody at once; its deliveries go in small bites
);
CREATE INDEX webhook_endpoints_by_client ON webhook_endpoints (client_id, id);
CREATE INDEX webhook_endpoints_deleted ON webhook_endpoints (id) WHERE deleted_at IS NOT NULL;

CREATE TABLE webhook_deliveries (  -- what is told to whom: written with its event, or made by a replay or a test
  id TEXT PRIMARY KEY,
  event_id TEXT NOT NULL,       -- the webhook-id: the same in every attempt and replay
  type TEXT NOT NULL,
  subject TEXT,                 -- as of the event
  generation_id TEXT REFERENCES generations (id) ON DELETE CASCADE,
  client_id TEXT NOT NULL REFERENCES clients (id),
  endpoint_id TEXT REFERENCES webhook_endpoints (id) ON DELETE CASCADE,  -- NULL: the request's own webhook_url
  url TEXT NOT NULL,
  target TEXT NOT NULL,         -- what shares a queue: the endpoint, or the client and a group of origins
  replay_of TEXT,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,  -- counted before the work
  event_at BIGINT NOT NULL,
  created_at BIGINT NOT NULL,
  due_at BIGINT NOT NULL,       -- when it is tried next; while a worker has it, when its lease ends
  lease_owner TEXT,
  finished_at BIGINT,
  text_bytes BIGINT NOT NULL DEFAULT 0,  -- of the answers in its attempts, as counted in holdings
  long_answer INTEGER NOT NULL DEFAULT 0,  -- 1: the answer to its last attempt is kept in full
  CONSTRAINT webhook_delivery_status_known CHECK (status IN ('pending', 'delivered', 'failed')),
  CONSTRAINT webhook_delivery_finished_iff_final CHECK ((finished_at IS NOT NULL) = (status <> 'pending'))
);
CREATE INDEX webhook_deliveries_by_client ON webhook_deliveries (client_id, id);
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX webhook_deliveries_by_generation ON webhook_deliveries (generation_id) WHERE generation_id IS NOT NULL;
-- By target first: a receiver with a million pending rows costs the others nothing when they are looked for.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (target, due_at) WHERE status = 'pending';
CREATE INDEX webhook_deliveries_long ON webhook_deliveries (target, id) WHERE long_answer = 1;
CREATE INDEX webhook_deliveries_leased ON webhook_deliveries (client_id, target) WHERE lease_owner IS NOT NULL;

CREATE TABLE webhook_attempts ( -- each try and what the receiver said
  delivery_id TEXT NOT NULL REFERENCES webhook_deliveries (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  began_at BIGINT NOT NULL,
  duration_ms BIGINT NOT NULL,
  status_code INTEGER,
  answer TEXT,                  -- its first 2 kB; 64 kB of the last attempt, while few of the same receiver are later
  error TEXT,                   -- why there is no answer, or why it was not taken for one
  PRIMARY KEY (delivery_id, number)
);

CREATE TABLE balances (         -- of a client or a campaign: changed in the transaction that changes a generation
  owner_id TEXT PRIMARY KEY,
  reserved_micros BIGINT NOT NULL,  -- the estimates of what is unfinished
  settled_micros BIGINT NOT NULL,   -- what the finished cost, and the estimates of what may have been charged
  warned_micros BIGINT,         -- the budget that a warning was given for
  unfinished BIGINT NOT NULL DEFAULT 0  -- generations that have not ended
);

CREATE TABLE holdings (         -- what is kept for a client: changed in the transaction that changes it; a test recounts it
  client_id TEXT PRIMARY KEY,
  file_bytes BIGINT NOT NULL,   -- of assets and results
  text_bytes BIGINT NOT NULL,   -- of what others chose the length of: requests, answers, what providers told
  generations BIGINT NOT NULL,  -- from here on: how many rows there are
  assets BIGINT NOT NULL,
  campaigns BIGINT NOT NULL,
  endpoints BIGINT NOT NULL,
  keys BIGINT NOT NULL,
  told BIGINT NOT NULL,         -- webhook_deliveries
  heard BIGINT NOT NULL,        -- deliveries
  answers BIGINT NOT NULL       -- idempotency_keys
);

CREATE TABLE usage_days (       -- what was finished, by the day it was asked for; a test proves it equal to a recount
  client_id TEXT NOT NULL,
  campaign_id TEXT NOT NULL,
  day BIGINT NOT NULL,          -- days since 1970, UTC
  kind TEXT NOT NULL,
  provider TEXT NOT NULL,
  model TEXT NOT NULL,
  key_id TEXT NOT NULL,         -- empty when there was none
  status TEXT NOT NULL,
  deleted INTEGER NOT NULL,     -- 1: the rows are gone, what they cost is not
  generations BIGINT NOT NULL,
  media_ms BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  estimated_micros BIGINT NOT NULL,
  actual_micros BIGINT NOT NULL,
  PRIMARY KEY (client_id, campaign_id, day, kind, provider, model, key_id, status, deleted)
);
CREATE INDEX usage_days_by_day ON usage_days (day);

CREATE TABLE idempotency_keys ( -- answers to requests that may be sent again: nothing is made or paid twice
  scope TEXT NOT NULL,          -- the client, or the admin key: one caller never meets another's
  key TEXT NOT NULL,
  request_hash TEXT NOT NULL,
  status INTEGER,               -- NULL while the first request is still running
  body TEXT,
  location TEXT,
  running_until BIGINT,         -- when a request that runs is given up: its process may have been killed
  created_at BIGINT NOT NULL,
  text_bytes BIGINT NOT NULL DEFAULT 0,  -- of the body, as counted in holdings
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

CREATE TABLE providers (        -- pauses: each worker must know of them, or each would be refused once more
  name TEXT PRIMARY KEY,
  paused_until BIGINT NOT NULL,
  reason TEXT
);

CREATE TABLE workers (          -- who is alive: readiness tells when nobody works on what is accepted
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  started_at BIGINT NOT NULL,
  seen_at BIGINT NOT NULL
);

CREATE TABLE restores (         -- when this database was put back from a backup
  restored_at BIGINT PRIMARY KEY,
  taken_at BIGINT NOT NULL      -- when the backup was begun: of what came between, no row is left
);

CREATE TABLE trash (            -- files whose rows are gone: removed later, so a crash leaves no row without its bytes
  file_name TEXT PRIMARY KEY,
  created_at BIGINT NOT NULL
);

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
