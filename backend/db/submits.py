"""Questions about what was sent to a provider, and what was not."""

from __future__ import annotations

from typing import Any

from backend.core.generation import LOCAL, Generation
from backend.db.connection import Tx
from backend.db.generation_rows import COLUMNS, read, written


async def any_submitting(tx: Tx, model: str, prompt: str | None, params: dict[str, Any]) -> bool:
    """Whether the same request is being sent now: a prediction in the provider's list could be that one's."""
    # The list of statuses is the condition of the index generations_due.
    row = await tx.one(
        """
        SELECT id FROM generations WHERE status = 'submitting' AND model = :model
        AND status IN ('submitting', 'unclear', 'processing', 'storing')
        AND COALESCE(prompt, '') = :prompt AND params = :params LIMIT 1
        """,
        model=model,
        prompt=prompt or "",
        params=written(params),
    )
    return row is not None


async def known_provider_id(tx: Tx, account: str, provider_id: str) -> bool:
    """Whether a generation has this prediction of the account already."""
    row = await tx.one(
        """
        SELECT id FROM generations
        WHERE COALESCE(account, provider) = :account AND provider_id = :provider_id LIMIT 1
        """,
        account=account,
        provider_id=provider_id,
    )
    return row is not None


async def hopeless(tx: Tx, before: int, offered: tuple[str, ...], now: int, limit: int) -> list[str]:
    """Return ids of rows older than this that were tried and put off, have a provider that is not offered, or wait for
    nothing.

    Rows that are due are none of them: they have not been tried again yet.
    """
    names = {f"name{number}": name for number, name in enumerate(offered or ("",))}
    rows = await tx.all(
        f"""
        SELECT id FROM generations WHERE status = 'queued' AND created_at < :before
        AND lease_owner IS NULL AND (
          (due_at > :now AND polls > 0) OR provider NOT IN ({", ".join(":" + name for name in names)})
        )
        UNION ALL
        SELECT id FROM generations WHERE status = 'waiting' AND created_at < :before
        AND NOT EXISTS (SELECT 1 FROM dependencies WHERE generation_id = generations.id)
        LIMIT :limit
        """,  # noqa: S608
        before=before,
        now=now,
        limit=limit,
        **names,
    )
    return [row["id"] for row in rows]


async def unsent(tx: Tx, limit: int) -> list[Generation]:
    """Return rows to which no provider has answered: those not sent yet, and those just being sent.

    What is made here is left out: it is known what became of it, and it may be made again.
    """
    rows = await tx.all(
        f"""
        SELECT {COLUMNS} FROM generations WHERE id IN (
          SELECT id FROM generations WHERE status = 'queued' AND provider <> :here
          UNION ALL SELECT id FROM generations WHERE status = 'waiting' AND provider <> :here
          UNION ALL SELECT id FROM generations WHERE status = 'submitting' AND provider <> :here
          AND status IN ('submitting', 'unclear', 'processing', 'storing')
          LIMIT :limit
        ) ORDER BY id
        """,  # noqa: S608
        here=LOCAL,
        limit=limit,
    )
    return [read(row) for row in rows]
