-- What was set aside, because nobody could work on it, is counted at once.

CREATE INDEX generations_set_aside ON generations (id)
  WHERE status = 'failed' AND attempts > 0;
