"""Which worker sends which webhooks: under a lease, by one conditional UPDATE, and fairly between receivers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from backend.core.webhooks import Outgoing
from backend.db.connection import Tx
from backend.db.webhook_deliveries import COLUMNS, read

BITE = 200
PER_TARGET = 4  # so that one slow receiver is not sent all there is
PER_CLIENT = 32  # nor can one client with many slow ones take every place


@dataclass(frozen=True, slots=True)
class Target:
    """A receiver that a webhook is due for. `closed`: its endpoint or its client is disabled or deleted."""

    name: str
    client_id: str
    due_at: int
    closed: bool


async def due_targets(tx: Tx, now: int) -> list[Target]:
    """Return the receivers that a webhook is due for: two steps of the index for each, however long its queue is."""
    rows = await tx.all(
        """
        WITH RECURSIVE found (target) AS (
          SELECT MIN(target) FROM webhook_deliveries WHERE status = 'pending'
          UNION ALL
          SELECT (SELECT MIN(d.target) FROM webhook_deliveries d WHERE d.status = 'pending' AND d.target > found.target)
          FROM found WHERE found.target IS NOT NULL
        )
        SELECT due.target AS target, due.client_id AS client_id, due.due_at AS due_at,
               COALESCE(clients.deleted_at, webhook_endpoints.disabled_at, webhook_endpoints.deleted_at) AS closed_at
        FROM found
        CROSS JOIN webhook_deliveries due
        CROSS JOIN clients
        LEFT JOIN webhook_endpoints ON webhook_endpoints.id = due.endpoint_id
        WHERE clients.id = due.client_id AND due.id = (
          SELECT d.id FROM webhook_deliveries d
          WHERE d.status = 'pending' AND d.target = found.target AND d.due_at <= :now ORDER BY d.due_at LIMIT 1)
        """,
        now=now,
    )
    return [Target(row["target"], row["client_id"], row["due_at"], row["closed_at"] is not None) for row in rows]


async def claim_fairly(
    tx: Tx, targets: list[Target], *, owner: str, now: int, until: int, limit: int
) -> list[Outgoing]:
    """Take webhooks that are due for these targets, first for those with the least under way. Leases end at `until`."""
    clients, flying = await _under_way(tx, now)
    portion = max(1, limit // max(1, len(targets)))
    taken: list[Outgoing] = []
    for target in sorted(targets, key=lambda one: (clients[one.client_id], flying[one.name], one.due_at)):
        room = min(PER_TARGET - flying[target.name], PER_CLIENT - clients[target.client_id], limit - len(taken))
        if room > 0:
            rows = await claim_due(tx, target.name, owner=owner, now=now, until=until, limit=min(room, portion))
            clients[target.client_id] += len(rows)
            taken += rows
    return taken


async def claim_due(tx: Tx, target: str, *, owner: str, now: int, until: int, limit: int) -> list[Outgoing]:
    """Take up to `limit` webhooks that are due for one receiver, the longest due first. Leases end at `until`."""
    rows = await tx.all(
        f"""
        UPDATE webhook_deliveries SET lease_owner = :owner, due_at = :until, attempts = attempts + 1
        WHERE id IN (
          SELECT id FROM webhook_deliveries WHERE status = 'pending' AND target = :target AND due_at <= :now
          ORDER BY due_at, id LIMIT :limit
        ) AND status = 'pending' AND due_at <= :now
        RETURNING {COLUMNS}
        """,  # noqa: S608
        target=target,
        owner=owner,
        now=now,
        until=until,
        limit=limit,
    )
    return sorted(map(read, rows), key=lambda row: row.id)


async def _under_way(tx: Tx, now: int) -> tuple[Counter[str], Counter[str]]:
    """Return how many webhooks are being sent now, by client and by target."""
    rows = await tx.all(
        """
        SELECT client_id, target, COUNT(*) AS n FROM webhook_deliveries
        WHERE lease_owner IS NOT NULL AND due_at > :now GROUP BY client_id, target
        """,
        now=now,
    )
    clients, targets = Counter[str](), Counter[str]()
    for row in rows:
        clients[row["client_id"]] += row["n"]
        targets[row["target"]] += row["n"]
    return clients, targets


async def release_leases(tx: Tx, now: int) -> int:
    """Make every leased webhook due; return how many. Right only when no other worker can be alive."""
    return await tx.run(
        "UPDATE webhook_deliveries SET lease_owner = NULL, due_at = :now WHERE lease_owner IS NOT NULL", now=now
    )


async def pull_in(tx: Tx, beyond: int, now: int, limit: int = BITE) -> int:
    """Make a bite of what is due after `beyond` due now; return how many. A clock was set back since it was planned."""
    return await tx.run(
        """
        UPDATE webhook_deliveries SET due_at = :now
        WHERE id IN (
          SELECT id FROM webhook_deliveries WHERE status = 'pending' AND due_at > :beyond AND lease_owner IS NULL
          LIMIT :limit
        ) AND due_at > :beyond AND lease_owner IS NULL
        """,
        beyond=beyond,
        now=now,
        limit=limit,
    )
