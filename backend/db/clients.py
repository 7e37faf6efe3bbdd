"""Clients and their campaigns: who generations are made for. Deleted ones are not there for anybody."""

from __future__ import annotations

from backend.db.connection import Row, Tx
from backend.model import Campaign, Client


def _client(row: Row) -> Client:
    return Client(row["id"], row["name"], row["created_at"])


def _campaign(row: Row) -> Campaign:
    return Campaign(row["id"], row["client_id"], row["name"], row["created_at"])


async def insert(tx: Tx, client: Client) -> None:
    """A new client."""
    await tx.run(
        "INSERT INTO clients (id, name, created_at) VALUES (:id, :name, :created_at)",
        id=client.id,
        name=client.name,
        created_at=client.created_at,
    )


async def get(tx: Tx, id: str) -> Client | None:
    """One client, or None."""
    row = await tx.one("SELECT id, name, created_at FROM clients WHERE id = :id AND deleted_at IS NULL", id=id)
    return _client(row) if row else None


async def first_named(tx: Tx, name: str) -> Client | None:
    """The oldest client of this name, or None."""
    row = await tx.one(
        "SELECT id, name, created_at FROM clients WHERE name = :name AND deleted_at IS NULL ORDER BY id LIMIT 1",
        name=name,
    )
    return _client(row) if row else None


async def page(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Client]:
    """Newest first; with `client_id` that one alone."""
    rows = await tx.all(
        """
        SELECT id, name, created_at FROM clients
        WHERE deleted_at IS NULL AND id < :cursor AND id >= :first AND id <= :last ORDER BY id DESC LIMIT :limit
        """,
        cursor=cursor or "~",
        first=client_id or "",
        last=client_id or "~",
        limit=limit,
    )
    return [_client(row) for row in rows]


async def rename(tx: Tx, id: str, name: str) -> None:
    """A new name."""
    await tx.run("UPDATE clients SET name = :name WHERE id = :id", id=id, name=name)


async def mark_deleted(tx: Tx, id: str, now: int) -> None:
    """The client, its campaigns and its keys are gone for everybody from this commit on."""
    await tx.run("UPDATE clients SET deleted_at = :now WHERE id = :id", id=id, now=now)
    await tx.run("UPDATE campaigns SET deleted_at = :now WHERE client_id = :id AND deleted_at IS NULL", id=id, now=now)
    await tx.run("UPDATE api_keys SET revoked_at = :now WHERE client_id = :id AND revoked_at IS NULL", id=id, now=now)


async def insert_campaign(tx: Tx, campaign: Campaign) -> None:
    """A new campaign."""
    await tx.run(
        "INSERT INTO campaigns (id, client_id, name, created_at) VALUES (:id, :client_id, :name, :created_at)",
        id=campaign.id,
        client_id=campaign.client_id,
        name=campaign.name,
        created_at=campaign.created_at,
    )


async def get_campaign(tx: Tx, id: str) -> Campaign | None:
    """One campaign, or None."""
    row = await tx.one(
        "SELECT id, client_id, name, created_at FROM campaigns WHERE id = :id AND deleted_at IS NULL", id=id
    )
    return _campaign(row) if row else None


async def page_of_campaigns(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Campaign]:
    """Newest first, of one client or of all."""
    of_client = "client_id = :client_id AND" if client_id else ""
    rows = await tx.all(
        f"""
        SELECT id, client_id, name, created_at FROM campaigns
        WHERE {of_client} deleted_at IS NULL AND id < :cursor ORDER BY id DESC LIMIT :limit
        """,  # noqa: S608
        cursor=cursor or "~",
        limit=limit,
        **({"client_id": client_id} if client_id else {}),
    )
    return [_campaign(row) for row in rows]


async def rename_campaign(tx: Tx, id: str, name: str) -> None:
    """A new name."""
    await tx.run("UPDATE campaigns SET name = :name WHERE id = :id", id=id, name=name)


async def mark_campaign_deleted(tx: Tx, id: str, now: int) -> None:
    """Gone for everybody from this commit on."""
    await tx.run("UPDATE campaigns SET deleted_at = :now WHERE id = :id", id=id, now=now)


async def has_unfinished(tx: Tx, *, campaign_id: str | None = None, client_id: str | None = None) -> bool:
    """Whether something of it is still being made: looked for among what is unfinished, not in all it has."""
    column = "campaign_id" if campaign_id else "client_id"
    for status in ("= 'waiting'", "= 'queued'", "IN ('submitting', 'unclear', 'processing', 'storing')"):
        row = await tx.one(
            f"SELECT id FROM generations WHERE status {status} AND {column} || '' = :id LIMIT 1",  # noqa: S608
            id=campaign_id or client_id,
        )
        if row:
            return True
    return False


async def deleted_with_rows(tx: Tx, limit: int) -> list[str]:
    """Ids of generations whose campaign is deleted: the next bite for the sweeper."""
    rows = await tx.all(
        """
        SELECT generations.id AS id FROM campaigns CROSS JOIN generations
        WHERE generations.campaign_id = campaigns.id AND campaigns.deleted_at IS NOT NULL LIMIT :limit
        """,
        limit=limit,
    )
    return [row["id"] for row in rows]
