-- A prediction belongs to one generation, and now the database says so. Where two had the same, which an answer to a
-- create could bring about, the older generation keeps it; the name that the other one has is no prediction's.

UPDATE generations SET provider_id = provider_id || '#' || id
WHERE provider_id IS NOT NULL AND EXISTS (
  SELECT 1 FROM generations AS older
  WHERE older.provider = generations.provider AND older.provider_id = generations.provider_id AND older.id < generations.id
);

DROP INDEX generations_by_provider_id;
CREATE UNIQUE INDEX generations_by_provider_id ON generations (provider, provider_id)
  WHERE provider_id IS NOT NULL;
