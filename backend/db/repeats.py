"""Answers kept by Idempotency-Key."""

from __future__ import annotations

from dataclasses import dataclass

from backend.db.connection import Tx


@dataclass(frozen=True)
class Repeat:
    """A request that was made before; `status` is None while the first one still runs."""

    request_hash: str
    status: int | None
    body: str | None
    location: str | None
    running_until: int | None
    created_at: int


async def get(tx: Tx, scope: str, key: str) -> Repeat | None:
    """What is known of this key in this scope."""
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
    """Keep the answer, or that it is being worked on."""
    await tx.run(
        """
        INSERT INTO idempotency_keys (scope, key, request_hash, status, body, location, running_until, created_at)
        VALUES (:scope, :key, :request_hash, :status, :body, :location, :running_until, :now)
        ON CONFLICT (scope, key) DO UPDATE SET request_hash = excluded.request_hash, status = excluded.status,
          body = excluded.body, location = excluded.location, running_until = excluded.running_until,
          created_at = excluded.created_at
        """,
        scope=scope,
        key=key,
        request_hash=request_hash,
        status=status,
        body=body,
        location=location,
        running_until=running_until,
        now=now,
    )


async def renew(tx: Tx, scope: str, key: str, now: int, old: str, body: str) -> None:
    """The answer is kept as if it had been given now, with this body; unless another one took its place."""
    await tx.run(
        """
        UPDATE idempotency_keys SET created_at = :now, body = :body
        WHERE scope = :scope AND key = :key AND body = :old
        """,
        scope=scope,
        key=key,
        now=now,
        old=old,
        body=body,
    )


async def forget(tx: Tx, scope: str, key: str) -> None:
    """The request failed: the key is free again."""
    await tx.run(
        "DELETE FROM idempotency_keys WHERE scope = :scope AND key = :key AND status IS NULL",
        scope=scope,
        key=key,
    )


async def prune(tx: Tx, before: int, now: int, limit: int) -> int:
    """Forget a bite of the answers older than `before`; how many. What is still running stays."""
    return await tx.run(
        """
        DELETE FROM idempotency_keys WHERE (scope, key) IN (
          SELECT scope, key FROM idempotency_keys
          WHERE created_at < :before AND COALESCE(running_until, 0) < :now ORDER BY created_at LIMIT :limit)
        """,
        before=before,
        now=now,
        limit=limit,
    )


async def forget_of_deleted(tx: Tx, limit: int) -> int:
    """Forget a bite of the answers given to clients that were deleted since; how many."""
    return await tx.run(
        """
        DELETE FROM idempotency_keys WHERE (scope, key) IN (
          SELECT idempotency_keys.scope, idempotency_keys.key FROM clients CROSS JOIN idempotency_keys
          WHERE clients.deleted_at IS NOT NULL AND idempotency_keys.scope = 'client:' || clients.id LIMIT :limit)
        """,
        limit=limit,
    )
