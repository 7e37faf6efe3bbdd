"""Answers that are kept by Idempotency-Key, so that a request that is sent again is not paid again."""

from __future__ import annotations

from dataclasses import dataclass

from backend.db import holdings
from backend.db.connection import Row, Tx
from backend.db.holdings import OF_CLIENT, Held


@dataclass(frozen=True)
class Repeat:
    """A request that was made before.

    `status` is the HTTP status of its answer, or None while it runs; `running_until` is when it is given up, in
    milliseconds. `request_hash` tells the same request from another one under the same key.
    """

    request_hash: str
    status: int | None
    body: str | None
    location: str | None
    running_until: int | None
    created_at: int


async def get(tx: Tx, scope: str, key: str) -> Repeat | None:
    """Return what is known of this key, or None. The scope is a client or an admin key: nobody meets another's keys."""
    row = await tx.one(
        """
        SELECT request_hash, status, body, location, running_until, created_at FROM idempotency_keys
        WHERE scope = :scope AND key = :key
        """,
        scope=scope,
        key=key,
    )
    return Repeat(**{name: row[name] for name in Repeat.__dataclass_fields__}) if row else None


async def put(
    tx: Tx,
    scope: str,
    key: str,
    request_hash: str,
    now: int,
    *,
    status: int | None = None,
    body: str | None = None,
    location: str | None = None,
    running_until: int | None = None,
) -> None:
    """Keep the answer; without a status, keep that the request is being worked on up to `running_until`."""
    old = await tx.one(
        "SELECT text_bytes FROM idempotency_keys WHERE scope = :scope AND key = :key", scope=scope, key=key
    )
    text_bytes = holdings.size(body)
    await tx.run(
        """
        INSERT INTO idempotency_keys (scope, key, request_hash, status, body, location, running_until, created_at,
          text_bytes)
        VALUES (:scope, :key, :request_hash, :status, :body, :location, :running_until, :now, :text_bytes)
        ON CONFLICT (scope, key) DO UPDATE SET request_hash = excluded.request_hash, status = excluded.status,
          body = excluded.body, location = excluded.location, running_until = excluded.running_until,
          created_at = excluded.created_at, text_bytes = excluded.text_bytes
        """,
        scope=scope,
        key=key,
        request_hash=request_hash,
        status=status,
        body=body,
        location=location,
        running_until=running_until,
        now=now,
        text_bytes=text_bytes,
    )
    before = old["text_bytes"] if old else 0
    await _count(tx, scope, text_bytes - before, 0 if old else 1)


async def renew(tx: Tx, scope: str, key: str, now: int, old: str, body: str) -> None:
    """Keep the answer as if it were given now, with another body, unless another answer took the place of `old`."""
    changed = await tx.run(
        """
        UPDATE idempotency_keys SET created_at = :now, body = :body, text_bytes = text_bytes + :more
        WHERE scope = :scope AND key = :key AND body = :old
        """,
        scope=scope,
        key=key,
        now=now,
        old=old,
        body=body,
        more=holdings.size(body) - holdings.size(old),
    )
    if changed:
        await _count(tx, scope, holdings.size(body) - holdings.size(old), 0)


async def forget(tx: Tx, scope: str, key: str) -> None:
    """Free a key whose request failed: it may be sent again."""
    rows = await tx.all(
        """
        SELECT scope, key, text_bytes FROM idempotency_keys WHERE scope = :scope AND key = :key AND status IS NULL
        """,
        scope=scope,
        key=key,
    )
    await _remove(tx, rows)


async def prune(tx: Tx, before: int, now: int, limit: int) -> int:
    """Remove a bite of the answers older than `before`, except those still running; return how many."""
    rows = await tx.all(
        """
        SELECT scope, key, text_bytes FROM idempotency_keys
        WHERE created_at < :before AND COALESCE(running_until, 0) < :now ORDER BY created_at LIMIT :limit
        """,
        before=before,
        now=now,
        limit=limit,
    )
    return await _remove(tx, rows)


async def forget_of_deleted(tx: Tx, limit: int) -> int:
    """Remove a bite of the answers to clients that are deleted; return how many."""
    rows = await tx.all(
        """
        SELECT idempotency_keys.scope AS scope, idempotency_keys.key AS key, text_bytes
        FROM clients CROSS JOIN idempotency_keys
        WHERE clients.deleted_at IS NOT NULL AND idempotency_keys.scope = 'client:' || clients.id LIMIT :limit
        """,
        limit=limit,
    )
    return await _remove(tx, rows)


async def _remove(tx: Tx, rows: list[Row]) -> int:
    """Remove these rows, and count them as gone; return how many."""
    of_clients = [row for row in rows if row["scope"].startswith(OF_CLIENT)]
    gone = ((row["scope"].removeprefix(OF_CLIENT), Held(text_bytes=row["text_bytes"], answers=1)) for row in of_clients)
    await holdings.give_back(tx, gone)
    removed = 0
    for row in rows:
        removed += await tx.run(
            "DELETE FROM idempotency_keys WHERE scope = :scope AND key = :key", scope=row["scope"], key=row["key"]
        )
    return removed


async def _count(tx: Tx, scope: str, text_bytes: int, answers: int) -> None:
    """Count what a client's answers take. Answers to admins belong to no client."""
    if scope.startswith(OF_CLIENT):
        await holdings.add(tx, scope.removeprefix(OF_CLIENT), Held(text_bytes=text_bytes, answers=answers))
