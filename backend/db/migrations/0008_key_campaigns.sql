-- A key can name the campaign of requests that name none, as those of an OpenAI SDK.

ALTER TABLE api_keys ADD COLUMN campaign_id TEXT REFERENCES campaigns (id);
