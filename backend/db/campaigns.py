"""Campaigns: what a client's generations are made for. A deleted one is there for nobody."""

from __future__ import annotations

from backend.core.people import Campaign
from backend.db import holdings
from backend.db.balances import OWNER_COLUMNS
from backend.db.connection import Row, Tx
from backend.db.holdings import Held


def _campaign(row: Row) -> Campaign:
    money = (row["budget_micros"], row["reserved"], row["spent"])
    return Campaign(row["id"], row["client_id"], row["name"], row["created_at"], *money)


async def mark_deleted_of_clients(tx: Tx, now: int, limit: int) -> int:
    """Delete a bite of the campaigns of deleted clients for everybody from this commit on; return how many."""
    # CROSS JOIN, here and in the other queries for what is deleted: SQLite does not turn it round, so it goes from the
    # few deleted clients to their rows, and not through all rows.
    return await tx.run(
        """
        UPDATE campaigns SET deleted_at = :now WHERE id IN (
          SELECT campaigns.id FROM clients CROSS JOIN campaigns
          WHERE clients.deleted_at IS NOT NULL AND campaigns.client_id = clients.id AND campaigns.deleted_at IS NULL
          LIMIT :limit)
        """,
        now=now,
        limit=limit,
    )


async def insert(tx: Tx, campaign: Campaign) -> None:
    """Write a new campaign, and count it as held."""
    await tx.run(
        """
        INSERT INTO campaigns (id, client_id, name, created_at, budget_micros)
        VALUES (:id, :client_id, :name, :created_at, :budget_micros)
        """,
        id=campaign.id,
        client_id=campaign.client_id,
        name=campaign.name,
        created_at=campaign.created_at,
        budget_micros=campaign.budget_micros,
    )
    await holdings.add(tx, campaign.client_id, Held(campaigns=1))


async def get(tx: Tx, id: str) -> Campaign | None:
    """Return one campaign, or None."""
    row = await tx.one(
        f"""
        SELECT client_id, {OWNER_COLUMNS} FROM campaigns LEFT JOIN balances ON owner_id = id
        WHERE id = :id AND deleted_at IS NULL
        """,  # noqa: S608
        id=id,
    )
    return _campaign(row) if row else None


async def first_named(tx: Tx, client_id: str, name: str) -> Campaign | None:
    """Return the oldest campaign of the client with this name, or None."""
    row = await tx.one(
        """
        SELECT id FROM campaigns
        WHERE client_id = :client_id AND name = :name AND deleted_at IS NULL ORDER BY id LIMIT 1
        """,
        client_id=client_id,
        name=name,
    )
    return await get(tx, row["id"]) if row else None


async def page(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Campaign]:
    """Return campaigns, newest first, of one client or of all."""
    of_client = "client_id = :client_id AND" if client_id else ""
    rows = await tx.all(
        f"""
        SELECT client_id, {OWNER_COLUMNS} FROM campaigns LEFT JOIN balances ON owner_id = id
        WHERE {of_client} deleted_at IS NULL AND id < :cursor ORDER BY id DESC LIMIT :limit
        """,  # noqa: S608
        cursor=cursor or "~",
        limit=limit,
        **({"client_id": client_id} if client_id else {}),
    )
    return [_campaign(row) for row in rows]


async def rename(tx: Tx, id: str, name: str) -> None:
    """Give the campaign a new name."""
    await tx.run("UPDATE campaigns SET name = :name WHERE id = :id", id=id, name=name)


async def set_budget(tx: Tx, id: str, micros: int | None) -> None:
    """Set what the campaign's work may cost in all, in millionths of a dollar; None: no limit."""
    await tx.run("UPDATE campaigns SET budget_micros = :micros WHERE id = :id", id=id, micros=micros)


async def mark_deleted(tx: Tx, id: str, now: int) -> None:
    """Delete the campaign for everybody from this commit on; its rows go later in small bites."""
    await tx.run("UPDATE campaigns SET deleted_at = :now WHERE id = :id", id=id, now=now)


async def deleted_with_rows(tx: Tx, limit: int) -> list[str]:
    """Return ids of finished generations whose campaign is deleted: what the sweep removes next."""
    rows = await tx.all(
        """
        SELECT generations.id AS id FROM campaigns CROSS JOIN generations
        WHERE generations.campaign_id = campaigns.id AND campaigns.deleted_at IS NOT NULL
        AND generations.status IN ('completed', 'failed', 'canceled') LIMIT :limit
        """,
        limit=limit,
    )
    return [row["id"] for row in rows]


async def forget_deleted(tx: Tx, limit: int) -> int:
    """Remove the rows of deleted campaigns that nothing belongs to any more, also from keys; return how many."""
    # First: the foreign key of an API key that names the campaign would make the DELETE fail.
    await tx.run(
        """
        UPDATE api_keys SET campaign_id = NULL WHERE campaign_id IN (
          SELECT id FROM campaigns WHERE deleted_at IS NOT NULL)
        """
    )
    rows = await tx.all(
        """
        DELETE FROM campaigns WHERE id IN (
          SELECT id FROM campaigns WHERE deleted_at IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM generations WHERE generations.campaign_id = campaigns.id)
          AND NOT EXISTS (SELECT 1 FROM events WHERE events.campaign_id = campaigns.id)
          ORDER BY id LIMIT :limit)
        RETURNING id, client_id
        """,
        limit=limit,
    )
    await holdings.give_back(tx, ((row["client_id"], Held(campaigns=1)) for row in rows))
    for row in rows:
        await tx.run("DELETE FROM balances WHERE owner_id = :id", id=row["id"])
    return len(rows)
