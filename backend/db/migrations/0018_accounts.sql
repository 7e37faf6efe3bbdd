-- A provider may have several accounts. The account that a generation was sent by is written when it is sent; rows from
-- before, and those that any account may take, have none: their provider's name stands for its first account.

ALTER TABLE generations ADD COLUMN account TEXT;

DROP INDEX generations_due;
CREATE INDEX generations_due ON generations (status, COALESCE(account, provider), due_at)
  WHERE status IN ('submitting', 'unclear', 'processing', 'storing');
DROP INDEX generations_storing;
CREATE INDEX generations_storing ON generations (COALESCE(account, provider), COALESCE(outputs_expire_at, 0), due_at)
  WHERE status = 'storing';
DROP INDEX generations_in_flight;
CREATE INDEX generations_in_flight ON generations (COALESCE(account, provider), client_id)
  WHERE status IN ('submitting', 'unclear', 'processing') AND held_at IS NULL;
DROP INDEX generations_by_provider_id;
CREATE UNIQUE INDEX generations_by_provider_id ON generations (COALESCE(account, provider), provider_id)
  WHERE provider_id IS NOT NULL;
