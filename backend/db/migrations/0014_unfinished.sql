-- How much of a client is unfinished is kept beside its money, which changes at the same moments: a request is admitted
-- by one row, however long the queue is and however many processes accept requests.

ALTER TABLE balances ADD COLUMN unfinished BIGINT NOT NULL DEFAULT 0;

UPDATE balances SET unfinished = (
  SELECT COUNT(*) FROM generations WHERE client_id = balances.owner_id
  AND status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing')
) WHERE owner_id IN (SELECT id FROM clients);

UPDATE balances SET unfinished = (
  SELECT COUNT(*) FROM generations WHERE campaign_id = balances.owner_id
  AND status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing')
) WHERE owner_id IN (SELECT id FROM campaigns);
