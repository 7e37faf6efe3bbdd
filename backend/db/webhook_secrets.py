"""The secrets that sign webhooks to a request's own `webhook_url`: one for each client, and its old ones."""

from __future__ import annotations

from backend.core.webhooks import ClientSecret
from backend.db.connection import Row, Tx

_COLUMNS = "webhook_secret, webhook_secret_at, webhook_secret_shown_at, webhook_old_secret, webhook_old_secret_until"


def _read(row: Row) -> ClientSecret:
    return ClientSecret(*(row[name] for name in _COLUMNS.split(", ")))


async def get(tx: Tx, client_id: str) -> ClientSecret | None:
    """Return the client's secret; None until it is first needed."""
    row = await tx.one(
        f"SELECT {_COLUMNS} FROM clients WHERE id = :id AND webhook_secret IS NOT NULL",  # noqa: S608
        id=client_id,
    )
    return _read(row) if row else None


async def keep(tx: Tx, client_id: str, fresh: str, now: int) -> ClientSecret | None:
    """Return the client's secret, which is `fresh` when it had none; None when there is no such client."""
    row = await tx.one(
        f"""
        UPDATE clients SET webhook_secret = COALESCE(webhook_secret, :fresh),
          webhook_secret_at = CASE WHEN webhook_secret IS NULL THEN :now ELSE webhook_secret_at END
        WHERE id = :id RETURNING {_COLUMNS}
        """,  # noqa: S608
        id=client_id,
        fresh=fresh,
        now=now,
    )
    return _read(row) if row else None


async def mark_shown(tx: Tx, client_id: str, now: int) -> bool:
    """Note that the secret is shown now; return whether it was not shown before."""
    changed = await tx.run(
        "UPDATE clients SET webhook_secret_shown_at = :now WHERE id = :id AND webhook_secret_shown_at IS NULL",
        id=client_id,
        now=now,
    )
    return changed == 1


async def rotate(tx: Tx, client_id: str, secret: str, old: str | None, until: int | None, now: int) -> None:
    """Set a new secret, which is shown as it is made. The old ones sign too up to `until`."""
    await tx.run(
        """
        UPDATE clients SET webhook_secret = :secret, webhook_secret_at = :now, webhook_secret_shown_at = :now,
          webhook_old_secret = :old, webhook_old_secret_until = :until
        WHERE id = :id
        """,
        id=client_id,
        secret=secret,
        old=old,
        until=until,
        now=now,
    )
