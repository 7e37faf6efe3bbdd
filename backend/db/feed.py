"""Events together with the generations they are about, as event streams read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from backend.core.events import Event
from backend.core.generation import Generation
from backend.db.connection import Row, Tx
from backend.db.generation_rows import COLUMNS, read

_EVENT = ("id", "generation_id", "client_id", "campaign_id", "type", "subject", "created_at")
_COLUMNS = ", ".join((*(f"events.{name}" for name in _EVENT), *(f"generations.{name}" for name in COLUMNS.split(", "))))
_SUBJECT = _EVENT.index("subject")
_WHOSE = {
    "all": "",
    "client": "AND events.client_id = :whose",
    "campaign": "AND events.campaign_id = :whose",
    "generation": "AND events.generation_id = :whose",
}


@dataclass(frozen=True, slots=True)
class Topic:
    """What a stream is about: everything, or one client, campaign or generation."""

    kind: Literal["all", "client", "campaign", "generation"] = "all"
    id: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a generation that a provider works on is, from 0 to 1, as far as the provider says."""

    id: str
    client_id: str
    campaign_id: str
    progress: float


async def page(tx: Tx, topic: Topic, after: str, limit: int) -> list[tuple[Event, Generation | None]]:
    """Return the topic's next events after this id with their generations, oldest first; none of deleted campaigns."""
    condition = _WHOSE[topic.kind]
    rows = await tx.all(
        f"""
        SELECT {_COLUMNS} FROM events LEFT JOIN generations ON generations.id = events.generation_id
        WHERE events.id > :after {condition} AND NOT EXISTS (
          SELECT 1 FROM campaigns WHERE campaigns.id = events.campaign_id AND campaigns.deleted_at IS NOT NULL)
        ORDER BY events.id LIMIT :limit
        """,  # noqa: S608
        after=after,
        limit=limit,
        **({"whose": topic.id} if topic.id else {}),
    )
    return [_read(row) for row in rows]


async def last_id(tx: Tx, topic: Topic) -> str:
    """Return the id of the topic's last event; empty when it has none."""
    condition = _WHOSE[topic.kind]
    row = await tx.one(
        f"SELECT MAX(events.id) AS id FROM events WHERE events.id > '' {condition}",  # noqa: S608
        **({"whose": topic.id} if topic.id else {}),
    )
    return str(row["id"] or "") if row else ""


async def named(tx: Tx, ids: Sequence[str]) -> list[Generation]:
    """Return those generations of these ids that exist."""
    names = {f"id{number}": id for number, id in enumerate(ids)}
    if not names:
        return []
    rows = await tx.all(
        f"SELECT {COLUMNS} FROM generations WHERE id IN ({', '.join(':' + name for name in names)}) ORDER BY id",  # noqa: S608
        **names,
    )
    return [read(row) for row in rows]


async def standings(tx: Tx, limit: int) -> list[Standing]:
    """Return the progress of what providers work on now, where they tell it."""
    # The list of statuses is the condition of the index generations_due.
    rows = await tx.all(
        """
        SELECT id, client_id, campaign_id, progress FROM generations
        WHERE status = 'processing' AND status IN ('submitting', 'unclear', 'processing', 'storing')
        AND progress IS NOT NULL LIMIT :limit
        """,
        limit=limit,
    )
    return [Standing(row["id"], row["client_id"], row["campaign_id"], row["progress"]) for row in rows]


def _read(row: Row) -> tuple[Event, Generation | None]:
    # By position: the columns of both tables have the same names.
    values = list(row[: len(_EVENT)])
    values[_SUBJECT] = json.loads(values[_SUBJECT]) if values[_SUBJECT] else None
    return Event(*values), read(row[len(_EVENT) :]) if row[len(_EVENT)] is not None else None
