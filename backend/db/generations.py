"""The table of generations, one row for each. Its status is changed here alone, by `move` and `begin`.

Every UPDATE of a status names in its WHERE where the row may come from. So a late word cannot overwrite a later state,
and of two who move a row at the same time one gets WrongStatus.
"""

from __future__ import annotations

from typing import Any

from backend.core.errors import WrongStatus
from backend.core.generation import CANCELED, COMPLETED, FAILED, FINAL, MOVES, QUEUED, STORING, Failure, Generation
from backend.db import balances, dependencies, events, holdings, provider_webhooks, sources, usage, webhook_deliveries
from backend.db.connection import Row, Tx
from backend.db.generation_rows import COLUMNS, NAMES, read, written
from backend.db.holdings import Held
from backend.logs import redact

_DONE_WITH_SOURCES = (STORING, FAILED, CANCELED)  # no provider fetches them after this
_TEXTS = ("prompt", "source", "params", "metadata", "webhook_url")  # what a client chose the length of
_INSERT = f"""
  INSERT INTO generations ({COLUMNS}, text_bytes) VALUES ({", ".join(":" + name for name in NAMES)}, :text_bytes)
"""  # noqa: S608
RELEASED_AT_ONCE = (
    2  # of the rows that wait for one: each may have to be told to 50 endpoints. The rest follow in bites
)


async def insert(tx: Tx, generation: Generation) -> None:
    """Write a new row as it is. What it starts from is in use from now on, and its estimate is reserved.

    Raises BudgetExceeded.
    """
    await balances.reserve(tx, generation)
    values = {name: written(getattr(generation, name, None)) for name in NAMES}
    text_bytes = holdings.size(*(values[name] for name in _TEXTS))
    await tx.run(_INSERT, **values, text_bytes=text_bytes)
    await holdings.add(tx, generation.client_id, Held(text_bytes=text_bytes, generations=1))
    await sources.insert(tx, generation.id, generation.source_ids)


async def get(tx: Tx, id: str) -> Generation | None:
    """Return one row, or None."""
    row = await tx.one(f"SELECT {COLUMNS} FROM generations WHERE id = :id", id=id)  # noqa: S608
    return read(row) if row else None


async def nonce_of(tx: Tx, account: str, id: str) -> str | None:
    """Return the nonce of a generation, which only its account knows from the webhook's URL; None without a row."""
    row = await tx.one(
        "SELECT nonce FROM generations WHERE id = :id AND COALESCE(account, provider) = :account",
        id=id,
        account=account,
    )
    return row["nonce"] if row else None


async def move(
    tx: Tx, id: str, to: str, *, now: int, owner: str | None = None, told: bool = False, **fields: Any
) -> Generation:
    """Change the status together with its event, its money, and a few of the rows that wait for it.

    `fields` are columns that change with it. With `owner`, only while that worker still has the lease. `told`: clients
    see no other status than before, so there is no event to write. `file_bytes` are those of all files of a completed
    row; without them, its `bytes`. Raises WrongStatus when the row is elsewhere by now: then nothing is changed.
    """
    moved = await _shift(tx, id, to, now, owner, told, **fields)
    if moved is None:
        raise WrongStatus(f"{id} cannot become {to} now")
    if to in FINAL and await dependencies.any_waiting(tx, id):
        await release(tx, id, now)
    return moved


async def _shift(tx: Tx, id: str, to: str, now: int, owner: str | None, told: bool, **fields: Any) -> Generation | None:
    """Change the status and write its event; None when the row is elsewhere by now."""
    failure: Failure | None = fields.pop("failure", None)
    fields = {"due_at": now, "lease_owner": None, "attempts": 0, "held_at": None, **fields, "status": to}
    if failure:
        fields |= {
            "error_code": failure.code,
            # A provider may quote the request, with our key in it. The text is redacted before it is cut to its length:
            # a secret that is cut in two is not recognised.
            "error_message": redact(failure.message[:4000])[:2000],
            "error_retryable": failure.retryable,
        }
    if to in FINAL:
        fields["finished_at"] = now
    if to == COMPLETED:
        fields.setdefault("file_bytes", fields.get("bytes") or 0)
    # One statement checks and moves: looked at before, the row could be moved by another one in between.
    allowed = ", ".join(f"'{status}'" for status in MOVES[to])
    row = await _update(tx, id, fields, f"status IN ({allowed})", owner)
    if row is None:
        return None
    moved = read(row)
    # In this transaction: after a crash between the two, the money would stay reserved for ever, or be counted twice.
    if to in FINAL:
        await balances.settle(tx, moved, now)
        await usage.add(tx, moved)
    if to == COMPLETED:
        await holdings.add(tx, moved.client_id, Held(file_bytes=fields["file_bytes"]))
    if moved.source and to in _DONE_WITH_SOURCES:
        await sources.release(tx, id)
    if not told:
        await events.announce(tx, moved, now)
    return moved


async def begin(tx: Tx, ids: list[str], *, account: str, owner: str, now: int) -> list[Generation]:
    """Move rows that this worker has to `submitting` by an account, all at once; the lease stays. No client is told."""
    if not ids:
        return []
    names = {f"id{number}": id for number, id in enumerate(ids)}
    rows = await tx.all(
        f"""
        UPDATE generations SET status = 'submitting', claimed_at = :now, account = :account
        WHERE id IN ({", ".join(":" + name for name in names)}) AND status = 'queued' AND lease_owner = :owner
        RETURNING {COLUMNS}
        """,  # noqa: S608
        account=account,
        owner=owner,
        now=now,
        **names,
    )
    return [read(row) for row in rows]


async def note(tx: Tx, id: str, *, status: str, owner: str | None = None, **fields: Any) -> bool:
    """Change columns other than the status while the row has this status; return whether it had."""
    return await _update(tx, id, fields, f"status = '{status}'", owner) is not None


async def delete(tx: Tx, id: str) -> None:
    """Delete the row and all that belongs to it, except its files and what it cost."""
    held = await tx.one("SELECT client_id, text_bytes, file_bytes FROM generations WHERE id = :id", id=id)
    if held is None:
        return
    own = Held(held["file_bytes"], held["text_bytes"], generations=1)
    # Asked before the DELETE: the foreign keys remove them with the row, and nobody could count them any more.
    about = [await provider_webhooks.held(tx, id), await webhook_deliveries.held(tx, id)]
    row = await tx.one(f"DELETE FROM generations WHERE id = :id RETURNING {COLUMNS}", id=id)  # noqa: S608
    if row is None:
        return
    await holdings.give_back(tx, ((held["client_id"], each) for each in (own, *about)))
    gone = read(row)
    if gone.status in FINAL:
        await usage.mark_deleted(tx, gone)
    else:
        await balances.release(tx, gone)


async def release(tx: Tx, source_id: str, now: int) -> None:
    """Queue or fail a few of the rows that waited for this one, which has ended. What is left is noted for later.

    A row that fails here has ended too, and that is noted as well. So a chain of any length comes to its end in small
    transactions, and one cancel does not hold the database for thousands of rows.
    """
    source = await tx.one("SELECT status FROM generations WHERE id = :id", id=source_id)
    if source:
        for id in await dependencies.waiting_for(tx, source_id, RELEASED_AT_ONCE):
            await _release_one(tx, id, source_id, source["status"], now)
    if await dependencies.any_waiting(tx, source_id):
        await dependencies.note_end(tx, source_id)
    else:
        await dependencies.forget_end(tx, source_id)


async def _release_one(tx: Tx, id: str, source_id: str, status: str, now: int) -> None:
    if status == COMPLETED:
        if await dependencies.settle(tx, id, source_id):
            await _shift(tx, id, QUEUED, now, None, False)
        return
    await dependencies.forget(tx, id)
    failure = Failure("source_failed", f"its source {source_id} was {status}", retryable=True)
    failed = await _shift(tx, id, FAILED, now, None, False, failure=failure)
    if failed and await dependencies.any_waiting(tx, id):
        await dependencies.note_end(tx, id)


async def _update(tx: Tx, id: str, fields: dict[str, Any], condition: str, owner: str | None) -> Row | None:
    unknown = fields.keys() - {*NAMES, "file_bytes"}
    if unknown:
        raise ValueError(f"no such columns: {unknown}")
    changes = ", ".join(f"{name} = :{name}" for name in fields)
    # A worker that slept beyond its lease comes back and writes. Without the fence it would overwrite what the next
    # worker did.
    fence = " AND lease_owner = :owner" if owner else ""
    return await tx.one(
        f"UPDATE generations SET {changes} WHERE id = :id AND {condition}{fence} RETURNING {COLUMNS}",  # noqa: S608
        **{name: written(value) for name, value in fields.items()},
        id=id,
        **({"owner": owner} if owner else {}),
    )
