"""Clients: who generations are made for. A deleted one is there for nobody."""

from __future__ import annotations

from backend.core.people import Client
from backend.db import campaigns, holdings, webhook_endpoints
from backend.db.balances import OWNER_COLUMNS
from backend.db.connection import Row, Tx

BITE = 500  # rows that are marked at once


def _client(row: Row) -> Client:
    return Client(row["id"], row["name"], row["created_at"], row["budget_micros"], row["reserved"], row["spent"])


async def insert(tx: Tx, client: Client) -> None:
    """Write a new client."""
    await tx.run(
        "INSERT INTO clients (id, name, created_at, budget_micros) VALUES (:id, :name, :created_at, :budget_micros)",
        id=client.id,
        name=client.name,
        created_at=client.created_at,
        budget_micros=client.budget_micros,
    )


async def get(tx: Tx, id: str) -> Client | None:
    """Return one client, or None."""
    row = await tx.one(
        f"""
        SELECT {OWNER_COLUMNS} FROM clients LEFT JOIN balances ON owner_id = id
        WHERE id = :id AND deleted_at IS NULL
        """,  # noqa: S608
        id=id,
    )
    return _client(row) if row else None


async def first_named(tx: Tx, name: str) -> Client | None:
    """Return the oldest client of this name, or None."""
    row = await tx.one(
        f"""
        SELECT {OWNER_COLUMNS} FROM clients LEFT JOIN balances ON owner_id = id
        WHERE name = :name AND deleted_at IS NULL ORDER BY id LIMIT 1
        """,  # noqa: S608
        name=name,
    )
    return _client(row) if row else None


async def page(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Client]:
    """Return clients, newest first; with `client_id` that one alone."""
    rows = await tx.all(
        f"""
        SELECT {OWNER_COLUMNS} FROM clients LEFT JOIN balances ON owner_id = id
        WHERE deleted_at IS NULL AND id < :cursor AND id >= :first AND id <= :last ORDER BY id DESC LIMIT :limit
        """,  # noqa: S608
        cursor=cursor or "~",  # it sorts behind every id
        first=client_id or "",
        last=client_id or "~",
        limit=limit,
    )
    return [_client(row) for row in rows]


async def rename(tx: Tx, id: str, name: str) -> None:
    """Give the client a new name."""
    await tx.run("UPDATE clients SET name = :name WHERE id = :id", id=id, name=name)


async def set_budget(tx: Tx, id: str, micros: int | None) -> None:
    """Set what the client's work may cost in all, in millionths of a dollar; None: no limit."""
    await tx.run("UPDATE clients SET budget_micros = :micros WHERE id = :id", id=id, micros=micros)


async def mark_deleted(tx: Tx, id: str, now: int) -> None:
    """Delete the client for everybody from this commit on, with its keys and a bite of its campaigns.

    Its rows and files go later in small bites: in one transaction they would hold up everybody else.
    """
    await tx.run("UPDATE clients SET deleted_at = :now WHERE id = :id", id=id, now=now)
    await campaigns.mark_deleted_of_clients(tx, now, BITE)
    await tx.run("UPDATE api_keys SET revoked_at = :now WHERE client_id = :id AND revoked_at IS NULL", id=id, now=now)
    await webhook_endpoints.mark_deleted_of(tx, id, now)


async def has_unfinished(tx: Tx, client_id: str, campaign_id: str | None = None) -> bool:
    """Whether a generation of the client, or of this campaign of it, is unfinished."""
    of_campaign = "AND campaign_id = :campaign_id" if campaign_id else ""
    row = await tx.one(
        f"""
        SELECT id FROM generations WHERE client_id = :client_id {of_campaign}
        AND status IN ('waiting', 'queued', 'submitting', 'unclear', 'processing', 'storing') LIMIT 1
        """,  # noqa: S608
        client_id=client_id,
        **({"campaign_id": campaign_id} if campaign_id else {}),
    )
    return row is not None


async def forget_deleted(tx: Tx, limit: int) -> int:
    """Remove the rows of deleted clients that nothing belongs to any more, with their keys; return how many."""
    # A client goes last, when the sweep has removed all else of it: a cascade over a million rows would be one
    # transaction.
    rows = await tx.all(
        """
        SELECT id FROM clients WHERE deleted_at IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM campaigns WHERE campaigns.client_id = clients.id)
        AND NOT EXISTS (SELECT 1 FROM assets WHERE assets.client_id = clients.id)
        AND NOT EXISTS (SELECT 1 FROM webhook_deliveries WHERE webhook_deliveries.client_id = clients.id)
        AND NOT EXISTS (SELECT 1 FROM webhook_endpoints WHERE webhook_endpoints.client_id = clients.id)
        AND NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE idempotency_keys.scope = 'client:' || clients.id)
        AND NOT EXISTS (SELECT 1 FROM events WHERE events.client_id = clients.id)
        ORDER BY id LIMIT :limit
        """,
        limit=limit,
    )
    for row in rows:
        await tx.run("DELETE FROM api_keys WHERE client_id = :id", id=row["id"])
        await tx.run("DELETE FROM balances WHERE owner_id = :id", id=row["id"])
        await holdings.forget(tx, row["id"])
        await tx.run("DELETE FROM clients WHERE id = :id", id=row["id"])
    return len(rows)
