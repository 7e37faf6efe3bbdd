"""API keys: their hashes and what they may do."""

from __future__ import annotations

from backend.core.people import ApiKey
from backend.db import holdings
from backend.db.connection import Row, Tx
from backend.db.holdings import Held

_COLUMNS = """id, client_id, name, prefix, hash, admin, image_limit, video_limit, created_at, expires_at, revoked_at,
  campaign_id, fingerprint"""
_NAMES = [name.strip() for name in _COLUMNS.split(",")]


def _read(row: Row) -> ApiKey:
    fields = {name: row[name] for name in _NAMES}
    return ApiKey(**{**fields, "admin": bool(fields["admin"])})


async def insert(tx: Tx, key: ApiKey) -> None:
    """Write a new key; of its text only the hash is kept."""
    await tx.run(
        f"INSERT INTO api_keys ({_COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})",  # noqa: S608
        **{name: getattr(key, name) for name in _NAMES if name != "admin"},
        admin=int(key.admin),
    )
    if key.client_id:
        await holdings.add(tx, key.client_id, Held(keys=1))


async def by_prefix(tx: Tx, prefix: str) -> ApiKey | None:
    """Return the key with this public prefix, also a revoked or expired one."""
    row = await tx.one(f"SELECT {_COLUMNS} FROM api_keys WHERE prefix = :prefix", prefix=prefix)  # noqa: S608
    return _read(row) if row else None


async def set_fingerprint(tx: Tx, id: str, fingerprint: int) -> None:
    """Keep 16 bits of the SHA-256 of a key that was made before fingerprints were, once its text was seen.

    Most wrong keys are told by it without a bcrypt check, which takes a core for 60 ms and more.
    """
    await tx.run(
        "UPDATE api_keys SET fingerprint = :fingerprint WHERE id = :id AND fingerprint IS NULL",
        id=id,
        fingerprint=fingerprint,
    )


async def get(tx: Tx, id: str) -> ApiKey | None:
    """Return one key, or None."""
    row = await tx.one(f"SELECT {_COLUMNS} FROM api_keys WHERE id = :id", id=id)  # noqa: S608
    return _read(row) if row else None


async def page(tx: Tx, cursor: str | None, limit: int) -> list[ApiKey]:
    """Return keys, newest first."""
    rows = await tx.all(
        f"SELECT {_COLUMNS} FROM api_keys WHERE id < :cursor ORDER BY id DESC LIMIT :limit",  # noqa: S608
        cursor=cursor or "~",
        limit=limit,
    )
    return [_read(row) for row in rows]


async def admins(tx: Tx, now: int) -> list[ApiKey]:
    """Return every admin key that is accepted now, oldest first."""
    rows = await tx.all(
        f"""
        SELECT {_COLUMNS} FROM api_keys
        WHERE admin = 1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :now) ORDER BY id
        """,  # noqa: S608
        now=now,
    )
    return [_read(row) for row in rows]


async def revoke(tx: Tx, id: str, now: int) -> bool:
    """Revoke a key from this commit on; return whether it was not revoked before."""
    changed = await tx.run(
        "UPDATE api_keys SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL", id=id, now=now
    )
    return changed == 1
