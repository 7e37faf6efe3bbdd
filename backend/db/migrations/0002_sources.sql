-- What unfinished generations start from is kept where it is found at once, however long the queue is.

CREATE INDEX generations_unfinished ON generations (client_id, campaign_id)
  WHERE status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing');

CREATE TABLE sources (          -- what unfinished generations start from: it is not deleted while a provider may fetch it
  generation_id TEXT NOT NULL REFERENCES generations (id) ON DELETE CASCADE,
  source_id TEXT NOT NULL,      -- an asset or a generation
  campaign_id TEXT,             -- of the source, when it is a generation: that campaign stays too
  PRIMARY KEY (generation_id, source_id)
);
CREATE INDEX sources_by_source ON sources (source_id);
CREATE INDEX sources_by_campaign ON sources (campaign_id) WHERE campaign_id IS NOT NULL;

-- The sources of what is unfinished now. JSON is text to the shared dialect: a name is looked for at every position.
INSERT INTO sources (generation_id, source_id, campaign_id)
WITH RECURSIVE positions (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM positions WHERE n < 500)
SELECT DISTINCT found.id, found.source_id, (SELECT campaign_id FROM generations WHERE generations.id = found.source_id)
FROM (
  SELECT generations.id AS id, SUBSTR(generations.source, positions.n + 12, 36) AS source_id
  FROM generations CROSS JOIN positions
  WHERE generations.status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing')
    AND generations.source <> '{}'
    AND SUBSTR(generations.source, positions.n, 12) IN ('"asset_id":"', '"image_id":"', '"video_id":"')
) AS found;
