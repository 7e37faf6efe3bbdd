"""Who changed what: written in the transaction of the change, never updated, and removed by age alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.core.ids import floor_id, new_id
from backend.core.people import Caller
from backend.db.connection import Row, Tx
from backend.disk.owner import user_name
from backend.logs import redact

ACTIONS = (
    "asset.deleted",
    "campaign.created",
    "campaign.deleted",
    "campaign.updated",
    "client.created",
    "client.deleted",
    "client.updated",
    "database.migrated",
    "generation.deleted",
    "key.created",
    "key.revoked",
    "restore",
    "settings.started",
    "webhook_endpoint.created",
    "webhook_endpoint.deleted",
    "webhook_endpoint.rotated",
    "webhook_endpoint.updated",
    "webhook_secret.rotated",
    "webhook_secret.shown",
)
SYSTEM = Caller("system", None, admin=True, kind="system")  # the service itself
_PUBLIC = {"prefix"}  # of a key: it only looks like a secret
COLUMNS = (
    "id, at, action, actor, actor_name, key_id, key_prefix, address, request_id, object_type, object_id, client_id, "
    "old_values, new_values"
)
_NAMES = COLUMNS.split(", ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `old_values` and `new_values` are the fields that changed; None where there was, or is, nothing."""

    id: str
    at: int
    action: str
    actor: str
    actor_name: str | None
    key_id: str | None
    key_prefix: str | None
    address: str | None
    request_id: str | None
    object_type: str
    object_id: str | None
    client_id: str | None
    old_values: dict[str, Any] | None
    new_values: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Subject:
    """What was changed, and whose it is."""

    type: str
    id: str | None
    client_id: str | None = None


def user() -> Caller:
    """Return the caller at the command line: the operating system's user who runs this process."""
    return Caller("cli", None, admin=True, kind="cli", name=user_name())


async def record(
    tx: Tx,
    caller: Caller,
    action: str,
    subject: Subject,
    now: int,
    *,
    old: Mapping[str, Any] | None = None,
    new: Mapping[str, Any] | None = None,
) -> None:
    """Keep that the caller did this. Of `old` and `new` only the differing fields are kept; nothing when none differ.

    All texts are redacted: people paste a secret where a name belongs.
    """
    if old is not None and new is not None:
        old, new = _differing(old, new)
        if not old:
            return
    await tx.run(
        f"INSERT INTO audit ({COLUMNS}) VALUES ({', '.join(':' + name for name in _NAMES)})",  # noqa: S608
        id=new_id(now),
        at=now,
        action=action,
        actor=caller.kind,
        actor_name=_clean(caller.name),
        key_id=caller.key_id if caller.kind == "key" else None,
        key_prefix=caller.prefix,
        address=caller.address,
        request_id=_clean(caller.request_id),
        object_type=subject.type,
        object_id=subject.id,
        client_id=subject.client_id,
        old_values=_written(old),
        new_values=_written(new),
    )


async def prune(tx: Tx, before: int, limit: int) -> int:
    """Remove a bite of the entries before this time; return how many."""
    return await tx.run(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id < :oldest ORDER BY id LIMIT :limit)",
        oldest=floor_id(before),  # ids begin with their time
        limit=limit,
    )


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return {name: old.get(name) for name in names}, {name: new.get(name) for name in names}


def _written(values: Mapping[str, Any] | None) -> str | None:
    return None if values is None else json.dumps(_clean(values), ensure_ascii=False, separators=(",", ":"))


def _clean(value: Any) -> Any:
    """Return the value with each of its texts redacted by itself, so that it stays JSON."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {name: one if name in _PUBLIC else _clean(one) for name, one in value.items()}
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def read(row: Row) -> Entry:
    fields = {name: row[name] for name in _NAMES}
    for name in ("old_values", "new_values"):
        fields[name] = json.loads(fields[name]) if fields[name] is not None else None
    return Entry(**fields)
