-- Some providers are asked about a prediction by more than its id: what else they gave out at the create is kept.

ALTER TABLE generations ADD COLUMN provider_ref TEXT;
