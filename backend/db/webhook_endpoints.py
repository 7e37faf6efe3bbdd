"""Webhook endpoints of clients: their addresses, the events they want, their secrets and their failures."""

from __future__ import annotations

import json

from backend.core.webhooks import Endpoint
from backend.db import holdings
from backend.db.connection import Row, Tx
from backend.db.holdings import Held

_COLUMNS = (
    "id, client_id, url, events, secret, old_secret, old_secret_until, failing_since, disabled_at, disabled_reason, "
    "created_at"
)
_NAMES = _COLUMNS.split(", ")


def _read(row: Row) -> Endpoint:
    fields = {name: row[name] for name in _NAMES}
    return Endpoint(**{**fields, "events": tuple(json.loads(fields["events"]))})


async def insert(tx: Tx, endpoint: Endpoint) -> None:
    """Write a new endpoint."""
    await tx.run(
        f"INSERT INTO webhook_endpoints ({_COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})",  # noqa: S608
        **{name: getattr(endpoint, name) for name in _NAMES if name != "events"},
        events=json.dumps(endpoint.events),
    )
    await holdings.add(tx, endpoint.client_id, Held(endpoints=1))


async def get(tx: Tx, id: str) -> Endpoint | None:
    """Return one endpoint, or None."""
    row = await tx.one(
        f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE id = :id AND deleted_at IS NULL",  # noqa: S608
        id=id,
    )
    return _read(row) if row else None


async def page(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Endpoint]:
    """Return endpoints, newest first, of one client or of all."""
    of_client = "client_id = :client_id AND" if client_id else ""
    rows = await tx.all(
        f"""
        SELECT {_COLUMNS} FROM webhook_endpoints
        WHERE {of_client} deleted_at IS NULL AND id < :cursor ORDER BY id DESC LIMIT :limit
        """,  # noqa: S608
        cursor=cursor or "~",
        limit=limit,
        **({"client_id": client_id} if client_id else {}),
    )
    return [_read(row) for row in rows]


async def count(tx: Tx, client_id: str) -> int:
    """Return how many endpoints a client has."""
    row = await tx.one(
        "SELECT COUNT(*) AS n FROM webhook_endpoints WHERE client_id = :client_id AND deleted_at IS NULL",
        client_id=client_id,
    )
    return int(row["n"]) if row else 0


async def count_disabled(tx: Tx) -> int:
    """Return how many endpoints of all clients are disabled."""
    row = await tx.one(
        "SELECT COUNT(*) AS n FROM webhook_endpoints WHERE disabled_at IS NOT NULL AND deleted_at IS NULL"
    )
    return int(row["n"]) if row else 0


async def listening(tx: Tx, client_id: str) -> list[Endpoint]:
    """Return the endpoints of a client that are not disabled, whatever events they want."""
    rows = await tx.all(
        f"""
        SELECT {_COLUMNS} FROM webhook_endpoints
        WHERE client_id = :client_id AND disabled_at IS NULL AND deleted_at IS NULL ORDER BY id
        """,  # noqa: S608
        client_id=client_id,
    )
    return [_read(row) for row in rows]


async def change(tx: Tx, id: str, url: str, events: tuple[str, ...]) -> None:
    """Change the address and the events. Failures of the former address are forgotten."""
    await tx.run(
        """
        UPDATE webhook_endpoints SET
          failing_since = CASE WHEN url = :url THEN failing_since END, url = :url, events = :events
        WHERE id = :id
        """,
        id=id,
        url=url,
        events=json.dumps(events),
    )


async def rotate(tx: Tx, id: str, secret: str, old: str, until: int) -> None:
    """Set a new secret. The old ones sign too up to then, so that a receiver can change over without a gap."""
    await tx.run(
        "UPDATE webhook_endpoints SET secret = :secret, old_secret = :old, old_secret_until = :until WHERE id = :id",
        id=id,
        secret=secret,
        old=old,
        until=until,
    )


async def enable(tx: Tx, id: str) -> None:
    """Enable an endpoint again, and forget its failures."""
    await tx.run(
        """
        UPDATE webhook_endpoints SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL WHERE id = :id
        """,
        id=id,
    )


async def disable(tx: Tx, id: str, now: int, reason: str) -> bool:
    """Disable an endpoint; return whether it was enabled."""
    changed = await tx.run(
        """
        UPDATE webhook_endpoints SET disabled_at = :now, disabled_reason = :reason
        WHERE id = :id AND disabled_at IS NULL AND deleted_at IS NULL
        """,
        id=id,
        now=now,
        reason=reason,
    )
    return changed == 1


async def note_failure(tx: Tx, id: str, now: int) -> int:
    """Note a failure; return since when the endpoint has failed without one success."""
    row = await tx.one(
        "UPDATE webhook_endpoints SET failing_since = COALESCE(failing_since, :now) WHERE id = :id "
        "RETURNING failing_since",
        id=id,
        now=now,
    )
    return int(row["failing_since"]) if row else now


async def note_success(tx: Tx, id: str) -> None:
    """Note a success: one success ends the count of failures, so a receiver that is flaky stays enabled."""
    await tx.run(
        "UPDATE webhook_endpoints SET failing_since = NULL WHERE id = :id AND failing_since IS NOT NULL", id=id
    )


async def mark_deleted(tx: Tx, id: str, now: int) -> None:
    """Delete an endpoint for everybody from this commit on; its deliveries go later in small bites."""
    await tx.run("UPDATE webhook_endpoints SET deleted_at = :now WHERE id = :id", id=id, now=now)


async def mark_deleted_of(tx: Tx, client_id: str, now: int) -> None:
    """Delete all endpoints of a client for everybody from this commit on."""
    await tx.run(
        "UPDATE webhook_endpoints SET deleted_at = :now WHERE client_id = :client_id AND deleted_at IS NULL",
        client_id=client_id,
        now=now,
    )


async def forget_deleted(tx: Tx, limit: int) -> int:
    """Remove the rows of deleted endpoints that have no deliveries any more; return how many."""
    rows = await tx.all(
        """
        DELETE FROM webhook_endpoints WHERE id IN (
          SELECT id FROM webhook_endpoints WHERE deleted_at IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.endpoint_id = webhook_endpoints.id)
          ORDER BY id LIMIT :limit)
        RETURNING client_id
        """,
        limit=limit,
    )
    await holdings.give_back(tx, ((row["client_id"], Held(endpoints=1)) for row in rows))
    return len(rows)
