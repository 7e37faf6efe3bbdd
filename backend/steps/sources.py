"""What a new row starts from: whether it can be used, and that the row waits for what is unfinished."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from backend.core.errors import InvalidInput, NotFound
from backend.core.generation import ACTIVE, COMPLETED, Generation
from backend.core.people import Asset
from backend.core.roles import Role
from backend.db import assets, campaigns, dependencies, generations
from backend.db.connection import Tx


async def check(tx: Tx, client_id: str, source: dict[str, Any], path: str, role: Role | None) -> list[str]:
    """Return the unfinished generation that this names, if it is one. Raises NotFound, InvalidInput.

    `path` stands before the field's name in an error; `role` is what the file is for, None where any will do.
    """
    missing = []
    if id := source.get("asset_id"):
        asset = await assets.get(tx, id)
        if asset is None or asset.client_id != client_id:
            # The same answer for what another client has: nobody learns which ids exist.
            raise NotFound("There is no such asset.", code="asset_not_found")
        if asset.kind == "audio":
            raise InvalidInput.of(f"{path}asset_id", "is a sound, not an image or a video")
        _check_fit(asset, role, f"{path}asset_id")
    for kind in ("image", "video"):
        if id := source.get(f"{kind}_id"):
            row = await generations.get(tx, id)
            if row is None or row.client_id != client_id or row.kind != kind or await _is_deleted(tx, row):
                raise NotFound(f"There is no such {kind}.", code=f"{kind}_not_found")
            if row.status in ACTIVE:
                missing.append(id)
            elif row.status != COMPLETED:
                raise InvalidInput.of(f"{path}{kind}_id", f"has no file: it is {row.status}", code="source_failed")
            else:
                _check_fit(row, role, f"{path}{kind}_id")
    return missing


async def keep(tx: Tx, row: Generation, missing: Collection[str]) -> None:
    """Write the row, which is waiting if anything is missing, and what it waits for."""
    await generations.insert(tx, row)
    for source_id in missing:
        await dependencies.insert(tx, row.id, source_id)


def _check_fit(file: Asset | Generation, role: Role | None, field: str) -> None:
    """Refuse a picture that the model does not take. Of a video it gets a frame, which is a JPEG of ours and fits."""
    if role is None or file.kind != "image":
        return
    if why := role.misfit(file.content_type or "", file.bytes or 0, (file.width, file.height)):
        raise InvalidInput.of(field, why)


async def _is_deleted(tx: Tx, row: Generation) -> bool:
    return await campaigns.get(tx, row.campaign_id) is None
