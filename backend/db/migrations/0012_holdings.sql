-- What is kept for each client is counted; receivers' long answers and providers' long words are shortened.

ALTER TABLE generations ADD COLUMN text_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE generations ADD COLUMN file_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE deliveries ADD COLUMN text_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE webhook_deliveries ADD COLUMN text_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE webhook_deliveries ADD COLUMN long_answer INTEGER NOT NULL DEFAULT 0;
ALTER TABLE idempotency_keys ADD COLUMN text_bytes BIGINT NOT NULL DEFAULT 0;
CREATE INDEX webhook_deliveries_long ON webhook_deliveries (target, id) WHERE long_answer = 1;

CREATE TABLE releases (
  source_id TEXT PRIMARY KEY REFERENCES generations (id) ON DELETE CASCADE
);

CREATE TABLE holdings (
  client_id TEXT PRIMARY KEY,
  file_bytes BIGINT NOT NULL,
  text_bytes BIGINT NOT NULL,
  generations BIGINT NOT NULL,
  assets BIGINT NOT NULL,
  campaigns BIGINT NOT NULL,
  endpoints BIGINT NOT NULL,
  keys BIGINT NOT NULL,
  told BIGINT NOT NULL,
  heard BIGINT NOT NULL,
  answers BIGINT NOT NULL
);

UPDATE webhook_attempts SET answer = SUBSTR(answer, 1, 2000) WHERE LENGTH(answer) > 2000;
UPDATE deliveries SET body = SUBSTR(body, 1, 65536) WHERE handled_at IS NOT NULL AND LENGTH(body) > 65536;

-- What is there already is counted by characters, which both databases can: close enough for what was written before.
UPDATE generations SET
  text_bytes = COALESCE(LENGTH(prompt), 0) + LENGTH(params) + LENGTH(metadata) + COALESCE(LENGTH(webhook_url), 0),
  file_bytes = CASE WHEN status = 'completed' THEN COALESCE(bytes, 0) ELSE 0 END;
UPDATE deliveries SET text_bytes = LENGTH(body);
UPDATE idempotency_keys SET text_bytes = COALESCE(LENGTH(body), 0);
UPDATE webhook_deliveries SET text_bytes = (
  SELECT CAST(SUM(LENGTH(answer)) AS BIGINT) FROM webhook_attempts WHERE delivery_id = webhook_deliveries.id
) WHERE EXISTS (SELECT 1 FROM webhook_attempts WHERE delivery_id = webhook_deliveries.id AND answer <> '');

INSERT INTO holdings (client_id, file_bytes, text_bytes, generations, assets, campaigns, endpoints, keys, told, heard,
  answers)
SELECT client_id, SUM(file_bytes), SUM(text_bytes), SUM(generations), SUM(assets), SUM(campaigns), SUM(endpoints),
  SUM(keys), SUM(told), SUM(heard), SUM(answers)
FROM (
  SELECT client_id, file_bytes, text_bytes, 1 AS generations, 0 AS assets, 0 AS campaigns, 0 AS endpoints, 0 AS keys,
    0 AS told, 0 AS heard, 0 AS answers FROM generations
  UNION ALL SELECT client_id, bytes, 0, 0, 1, 0, 0, 0, 0, 0, 0 FROM assets
  UNION ALL SELECT client_id, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0 FROM campaigns
  UNION ALL SELECT client_id, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 FROM webhook_endpoints
  UNION ALL SELECT client_id, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0 FROM api_keys WHERE client_id IS NOT NULL
  UNION ALL SELECT client_id, 0, text_bytes, 0, 0, 0, 0, 0, 1, 0, 0 FROM webhook_deliveries
  UNION ALL SELECT generations.client_id, 0, deliveries.text_bytes, 0, 0, 0, 0, 0, 0, 1, 0
    FROM deliveries JOIN generations ON generations.id = deliveries.generation_id
  UNION ALL SELECT SUBSTR(scope, 8), 0, text_bytes, 0, 0, 0, 0, 0, 0, 0, 1
    FROM idempotency_keys WHERE scope LIKE 'client:%'
) AS counted GROUP BY client_id;
