"""What unfinished generations start from. It must stay until their providers have fetched it."""

from __future__ import annotations

from collections.abc import Iterable

from backend.db.connection import Tx


async def insert(tx: Tx, generation_id: str, source_ids: Iterable[str]) -> None:
    """Note that this generation starts from these assets and generations: they are not deleted while it needs them."""
    for id in source_ids:
        await tx.run(
            """
            INSERT INTO sources (generation_id, source_id, campaign_id)
            VALUES (:generation_id, :id, (SELECT campaign_id FROM generations WHERE id = :id))
            """,
            generation_id=generation_id,
            id=id,
        )


async def release(tx: Tx, generation_id: str) -> None:
    """Note that this generation needs its sources no more."""
    await tx.run("DELETE FROM sources WHERE generation_id = :id", id=generation_id)


async def are_needed(tx: Tx, *, id: str | None = None, campaign_id: str | None = None) -> bool:
    """Whether a provider may still ask for this asset or generation, or for any generation of this campaign."""
    column = "campaign_id" if campaign_id else "source_id"
    row = await tx.one(
        f"SELECT source_id FROM sources WHERE {column} = :id LIMIT 1",  # noqa: S608
        id=campaign_id or id,
    )
    return row is not None
