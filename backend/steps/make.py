"""Step 1, for what is made here: films cut and joined, pictures taken from them. No request asks for it yet."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from backend.context import Context
from backend.core.errors import InvalidInput
from backend.core.generation import LOCAL, QUEUED, WAITING, Generation, Kind
from backend.core.people import Caller, Campaign
from backend.db import assets, balances
from backend.db.connection import Tx
from backend.manage import access, backlog, storage_quota
from backend.providers.base import Order
from backend.steps import deadlines, sources

Work = Literal["trim", "stitch", "frame", "poster"]
MAKES: Mapping[Work, Kind] = {"trim": "video", "stitch": "video", "frame": "image", "poster": "image"}


async def accept(
    tx: Tx, ctx: Context, caller: Caller, campaign_id: str, work: Work, films: Sequence[dict[str, str]], **told: Any
) -> Generation:
    """A row for this work; it waits for the generations among `films` that are unfinished, and costs nothing.

    Each is `{"video_id": ...}`, `{"asset_id": ...}`, or for a poster `{"image_id": ...}`, of the campaign's
    client; `told` is `from_s` and `to_s` in seconds of a trim, `which` of a frame. Raises NotFound, InvalidInput,
    TooManyRequests, ClientFull.
    """
    campaign = await access.campaign(tx, caller, campaign_id)
    wanted = {**told, "files": films}
    ctx.providers[LOCAL].prepare(Order(ctx.new_id(), work, wanted, None, deadlines.USUAL_LIMIT_S))
    row = _row(ctx, caller, campaign, work, films, told)
    missing = [id for one in films for id in await _check(tx, campaign.client_id, work, one)]
    await balances.admit(tx, campaign.client_id, campaign.id, 0)
    await storage_quota.admit(tx, ctx, campaign.client_id)
    await backlog.admit(tx, ctx, campaign.client_id, 1)
    row = replace(row, status=WAITING if missing else QUEUED)
    await sources.keep(tx, row, missing)
    return row


async def _check(tx: Tx, client_id: str, work: Work, source: dict[str, str]) -> list[str]:
    """The unfinished generation among this. Raises NotFound, InvalidInput."""
    if len(source) != 1 or not {*source} <= {"asset_id", "image_id", "video_id"}:
        raise InvalidInput.of("sources", "names one asset, image or video each")
    missing = await sources.check(tx, client_id, source, "", None)
    asset = await assets.get(tx, source["asset_id"]) if "asset_id" in source else None
    if work != "poster" and ("image_id" in source or (asset and asset.kind != "video")):
        raise InvalidInput.of("sources", f"{work} takes videos")
    return missing


def _row(
    ctx: Context,
    caller: Caller,
    campaign: Campaign,
    work: Work,
    films: Sequence[dict[str, str]],
    told: dict[str, Any],
) -> Generation:
    now = ctx.now()
    return Generation(
        id=ctx.new_id(),
        kind=MAKES[work],
        status=QUEUED,
        client_id=campaign.client_id,
        campaign_id=campaign.id,
        key_id=caller.key_id,
        provider=LOCAL,
        model=work,
        source={"films": list(films)} if work == "stitch" else dict(films[0]),
        params=told,
        metadata={},
        nonce=secrets.token_urlsafe(24),
        cost_estimated_micros=0,
        created_at=now,
        due_at=now,
    )
