"""Assets: files that clients brought."""

from __future__ import annotations

from backend.core.people import Asset
from backend.db import holdings
from backend.db.connection import Row, Tx
from backend.db.holdings import Held

_COLUMNS = "id, client_id, kind, name, file_name, content_type, bytes, sha256, width, height, duration_s, created_at"


def _read(row: Row) -> Asset:
    return Asset(**{name: row[name] for name in _COLUMNS.split(", ")})


async def insert(tx: Tx, asset: Asset) -> None:
    """Write a new asset. Its bytes are stored before: a row without bytes would be a broken promise after a crash."""
    names = _COLUMNS.split(", ")
    await tx.run(
        f"INSERT INTO assets ({_COLUMNS}) VALUES ({', '.join(':' + name for name in names)})",  # noqa: S608
        **{name: getattr(asset, name) for name in names},
    )
    await holdings.add(tx, asset.client_id, Held(file_bytes=asset.bytes, assets=1))


async def get(tx: Tx, id: str) -> Asset | None:
    """Return one asset, or None."""
    row = await tx.one(f"SELECT {_COLUMNS} FROM assets WHERE id = :id", id=id)  # noqa: S608
    return _read(row) if row else None


async def page(tx: Tx, client_id: str | None, cursor: str | None, limit: int) -> list[Asset]:
    """Return assets, newest first, of one client or of all clients that are not deleted."""
    of_client = (
        "client_id = :client_id"
        if client_id
        else "NOT EXISTS (SELECT 1 FROM clients WHERE clients.id = assets.client_id AND deleted_at IS NOT NULL)"
    )
    rows = await tx.all(
        f"SELECT {_COLUMNS} FROM assets WHERE {of_client} AND id < :cursor ORDER BY id DESC LIMIT :limit",  # noqa: S608
        cursor=cursor or "~",
        limit=limit,
        **({"client_id": client_id} if client_id else {}),
    )
    return [_read(row) for row in rows]


async def of_deleted_clients(tx: Tx, limit: int) -> list[Asset]:
    """Return some assets of deleted clients: what the sweep removes next."""
    columns = ", ".join(f"assets.{name} AS {name}" for name in _COLUMNS.split(", "))
    rows = await tx.all(
        f"""
        SELECT {columns} FROM clients CROSS JOIN assets
        WHERE assets.client_id = clients.id AND clients.deleted_at IS NOT NULL LIMIT :limit
        """,  # noqa: S608
        limit=limit,
    )
    return [_read(row) for row in rows]


async def delete(tx: Tx, id: str) -> None:
    """Delete the row. Its file is noted in the trash and removed after the commit."""
    row = await tx.one("DELETE FROM assets WHERE id = :id RETURNING client_id, bytes", id=id)
    if row:
        await holdings.add(tx, row["client_id"], Held(file_bytes=-row["bytes"], assets=-1))
