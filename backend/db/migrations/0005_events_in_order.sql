-- Events are told in the order of their commits, and some are about a budget instead of a generation.

CREATE TABLE events_before AS SELECT * FROM events;
DROP TABLE events;
CREATE TABLE events (
  id TEXT PRIMARY KEY,
  generation_id TEXT REFERENCES generations (id) ON DELETE CASCADE,
  client_id TEXT NOT NULL,
  campaign_id TEXT,
  type TEXT NOT NULL,
  subject TEXT,
  created_at BIGINT NOT NULL,
  UNIQUE (generation_id, type),
  CONSTRAINT event_type_known CHECK (type IN ('generation.processing', 'generation.completed', 'generation.failed', 'generation.canceled', 'budget.warning')),
  CONSTRAINT event_of_generation_or_subject CHECK ((generation_id IS NULL) = (subject IS NOT NULL))
);
INSERT INTO events (id, generation_id, client_id, campaign_id, type, created_at)
  SELECT id, generation_id, client_id, campaign_id, type, created_at FROM events_before;
DROP TABLE events_before;
CREATE INDEX events_by_client ON events (client_id, id);
CREATE INDEX events_by_campaign ON events (campaign_id, id);

CREATE TABLE event_clock (
  one INTEGER PRIMARY KEY,
  last_id TEXT NOT NULL,
  CONSTRAINT clock_is_one_row CHECK (one = 1)
);
INSERT INTO event_clock (one, last_id) SELECT 1, COALESCE(MAX(id), '') FROM events;
