"""Attempts to send webhooks to clients, and what the receivers answered.

The beginning of each answer is kept, and all of the latest ones: a receiver may answer 64 kB to every webhook.
"""

from __future__ import annotations

from backend.core.webhooks import SHORT_ANSWER, Attempt
from backend.db import holdings
from backend.db.connection import Tx
from backend.db.holdings import Held

LONG_ANSWERS = 4  # of one receiver, kept in full: the latest, to see what is wrong with it


async def of(tx: Tx, ids: list[str], answer_characters: int) -> dict[str, list[Attempt]]:
    """Return the attempts of these deliveries by their ids, oldest first, with the beginning of each answer."""
    if not ids:
        return {}
    names = {f"id{number}": id for number, id in enumerate(ids)}
    rows = await tx.all(
        f"""
        SELECT delivery_id, number, began_at, duration_ms, status_code, SUBSTR(answer, 1, :most) AS answer, error
        FROM webhook_attempts WHERE delivery_id IN ({", ".join(":" + name for name in names)})
        ORDER BY delivery_id, number
        """,  # noqa: S608
        most=answer_characters,
        **names,
    )
    found: dict[str, list[Attempt]] = {id: [] for id in ids}
    for row in rows:
        found[row["delivery_id"]].append(Attempt(**{name: row[name] for name in Attempt.__dataclass_fields__}))
    return found


async def count(tx: Tx, id: str) -> int:
    """Return how many attempts came to an end."""
    row = await tx.one("SELECT COUNT(*) AS n FROM webhook_attempts WHERE delivery_id = :id", id=id)
    return int(row["n"]) if row else 0


async def was_tried(tx: Tx, endpoint_id: str, since: int, floor: str) -> bool:
    """Whether an attempt was made at this endpoint since then, for a delivery whose id is after `floor`."""
    row = await tx.one(
        """
        SELECT webhook_deliveries.id AS id FROM webhook_deliveries
        JOIN webhook_attempts ON webhook_attempts.delivery_id = webhook_deliveries.id
        WHERE webhook_deliveries.endpoint_id = :endpoint_id AND webhook_deliveries.id > :floor
        AND webhook_attempts.began_at >= :since ORDER BY webhook_deliveries.id DESC LIMIT 1
        """,
        endpoint_id=endpoint_id,
        floor=floor,
        since=since,
    )
    return row is not None


async def keep(tx: Tx, attempt: Attempt) -> None:
    """Keep the result of one attempt, and cut the answer to the attempt before it to its beginning."""
    await _shorten(tx, attempt.delivery_id)
    await tx.run(
        """
        INSERT INTO webhook_attempts (delivery_id, number, began_at, duration_ms, status_code, answer, error)
        VALUES (:delivery_id, :number, :began_at, :duration_ms, :status_code, :answer, :error)
        """,
        **{name: getattr(attempt, name) for name in Attempt.__dataclass_fields__},
    )
    if attempt.answer:
        is_long = len(attempt.answer) > SHORT_ANSWER
        target = await _count_answer(tx, attempt.delivery_id, holdings.size(attempt.answer), is_long)
        if is_long and target:
            await _shorten_older(tx, target)


async def _count_answer(tx: Tx, id: str, text_bytes: int, is_long: bool) -> str | None:
    """Count so many bytes of an answer; return the target of the delivery, or None when that is gone."""
    row = await tx.one(
        """
        UPDATE webhook_deliveries SET text_bytes = text_bytes + :text_bytes, long_answer = :is_long WHERE id = :id
        RETURNING client_id, target
        """,
        id=id,
        text_bytes=text_bytes,
        is_long=int(is_long),
    )
    if row:
        await holdings.add(tx, row["client_id"], Held(text_bytes=text_bytes))
    return row["target"] if row else None


async def _shorten_older(tx: Tx, target: str) -> None:
    """Cut the long answers of one receiver except the latest LONG_ANSWERS."""
    rows = await tx.all(
        """
        SELECT id FROM webhook_deliveries WHERE target = :target AND long_answer = 1
        ORDER BY id DESC LIMIT :limit OFFSET :kept
        """,
        target=target,
        kept=LONG_ANSWERS,
        limit=LONG_ANSWERS,
    )
    for row in rows:
        await _shorten(tx, row["id"])


async def _shorten(tx: Tx, id: str) -> None:
    """Cut the answers to one delivery to their beginnings."""
    if await tx.one("SELECT id FROM webhook_deliveries WHERE id = :id AND long_answer = 1", id=id) is None:
        return
    await tx.run(
        """
        UPDATE webhook_attempts SET answer = SUBSTR(answer, 1, :most)
        WHERE delivery_id = :id AND LENGTH(answer) > :most
        """,
        id=id,
        most=SHORT_ANSWER,
    )
    rows = await tx.all("SELECT answer FROM webhook_attempts WHERE delivery_id = :id", id=id)
    before = await tx.one("SELECT text_bytes FROM webhook_deliveries WHERE id = :id", id=id)
    now = holdings.size(*(row["answer"] for row in rows))
    await _count_answer(tx, id, now - (before["text_bytes"] if before else 0), is_long=False)
