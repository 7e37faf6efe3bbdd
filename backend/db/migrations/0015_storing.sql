-- What is to be stored is taken in the order in which its outputs expire, which no index held: every look sorted all.

CREATE INDEX generations_storing ON generations (COALESCE(outputs_expire_at, 0), due_at) WHERE status = 'storing';
