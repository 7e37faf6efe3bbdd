"""Step 7: list rows, and find what belongs to them."""

from __future__ import annotations

from backend.context import Context
from backend.core import cursors
from backend.core.generation import SHOWN, Generation
from backend.core.people import ApiKey, Asset, Caller, Campaign, Client
from backend.core.webhooks import ANSWER_BYTES, Attempt, Endpoint, Outgoing
from backend.db import (
    assets,
    audit,
    audit_lists,
    campaigns,
    clients,
    feed,
    keys,
    lists,
    webhook_attempts,
    webhook_endpoints,
    webhook_lists,
)
from backend.db.connection import Tx
from backend.db.feed import Topic
from backend.db.lists import Filters
from backend.db.webhook_lists import DeliveryFilter
from backend.manage import access

MOST_SCANS = 10  # reads for one page: a filter that matches nothing ends, however long the list is
LISTED_CHARACTERS = 1_000  # of each receiver's answer in a list
_NO_STAGE = "none"  # no row has this status: for two filters that exclude each other


async def generation(ctx: Context, caller: Caller, id: str) -> Generation:
    """Return a generation that the caller sees. Raises NotFound."""
    return await ctx.db.read(lambda tx: access.generation(tx, caller, id))


async def has_events(ctx: Context, topic: Topic, after: str) -> bool:
    """Return whether the topic has an event after this id."""
    return bool(await ctx.db.read(lambda tx: feed.page(tx, topic, after, 1)))


async def generation_page(
    ctx: Context, caller: Caller, filters: Filters, cursor: str | None, limit: int
) -> tuple[list[Generation], str | None]:
    """Return one page of what the caller sees, newest first, and the cursor of the next page.

    One request reads a bounded part of the list. So a page of rare matches may be short, and goes on by its cursor.
    """
    found, before = await generations_from(ctx, filters, cursors.read(cursor), limit)
    return found, cursors.write(before)


async def generations_from(
    ctx: Context, filters: Filters, start: str | None, limit: int, *, oldest_first: bool = False
) -> tuple[list[Generation], str | None]:
    """Return the page beyond the id `start`, and the id to go on from; None at the end."""
    ask, found = lists.page_up if oldest_first else lists.page, list[Generation]()
    for _ in range(MOST_SCANS):
        rest, here = limit - len(found), start
        more, start = await ctx.db.read(lambda tx, here=here, rest=rest: ask(tx, filters, here, rest))  # type: ignore[misc]
        found += more
        if start is None or len(found) == limit:
            break
    return found, start


def stages_of(status: str | None, stage: str | None = None) -> tuple[str, ...]:
    """Return the stored statuses behind one that clients are shown, or the one `stage`; an empty tuple means any."""
    if stage is not None:
        return (stage,) if status in (None, SHOWN[stage]) else (_NO_STAGE,)
    return tuple(own for own, shown in SHOWN.items() if shown == status)


async def client(ctx: Context, caller: Caller, id: str) -> Client:
    """Return a client that the caller sees. Raises NotFound."""
    return await ctx.db.read(lambda tx: access.client(tx, caller, id))


async def campaign(ctx: Context, caller: Caller, id: str) -> Campaign:
    """Return a campaign that the caller sees. Raises NotFound."""
    return await ctx.db.read(lambda tx: access.campaign(tx, caller, id))


async def asset(ctx: Context, caller: Caller, id: str) -> Asset:
    """Return an asset that the caller sees. Raises NotFound."""
    return await ctx.db.read(lambda tx: access.asset(tx, caller, id))


async def client_page(ctx: Context, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Client], str | None]:
    """Return clients, newest first; a client's key sees its own client alone."""
    before = cursors.read(cursor)
    return cursors.page(await ctx.db.read(lambda tx: clients.page(tx, caller.only_client, before, limit + 1)), limit)


async def campaign_page(
    ctx: Context, caller: Caller, cursor: str | None, limit: int
) -> tuple[list[Campaign], str | None]:
    """Return campaigns, newest first."""
    before = cursors.read(cursor)
    return cursors.page(await ctx.db.read(lambda tx: campaigns.page(tx, caller.only_client, before, limit + 1)), limit)


async def asset_page(ctx: Context, caller: Caller, cursor: str | None, limit: int) -> tuple[list[Asset], str | None]:
    """Return assets, newest first."""
    before = cursors.read(cursor)
    return cursors.page(await ctx.db.read(lambda tx: assets.page(tx, caller.only_client, before, limit + 1)), limit)


async def key_page(ctx: Context, cursor: str | None, limit: int) -> tuple[list[ApiKey], str | None]:
    """Return keys, newest first; for admins."""
    before = cursors.read(cursor)
    return cursors.page(await ctx.db.read(lambda tx: keys.page(tx, before, limit + 1)), limit)


async def audit_page(
    ctx: Context, wanted: audit_lists.AuditFilter, cursor: str | None, limit: int
) -> tuple[list[audit.Entry], str | None]:
    """Return what was changed by whom, newest first; for admins. A page of rare matches may be short."""
    before = cursors.read(cursor)
    rows, after = await ctx.db.read(lambda tx: audit_lists.page(tx, wanted, before, limit))
    return rows, cursors.write(after)


async def endpoint(ctx: Context, caller: Caller, id: str) -> Endpoint:
    """Return a webhook endpoint that the caller sees. Raises NotFound."""
    return await ctx.db.read(lambda tx: access.endpoint(tx, caller, id))


async def endpoint_page(
    ctx: Context, caller: Caller, cursor: str | None, limit: int
) -> tuple[list[Endpoint], str | None]:
    """Return webhook endpoints, newest first."""
    before = cursors.read(cursor)
    return cursors.page(
        await ctx.db.read(lambda tx: webhook_endpoints.page(tx, caller.only_client, before, limit + 1)), limit
    )


async def outgoing(ctx: Context, caller: Caller, id: str) -> tuple[Outgoing, list[Attempt]]:
    """Return a webhook delivery that the caller sees, with its attempts. Raises NotFound."""

    async def work(tx: Tx) -> tuple[Outgoing, list[Attempt]]:
        row = await access.outgoing(tx, caller, id)
        return row, (await webhook_attempts.of(tx, [id], ANSWER_BYTES))[id]

    return await ctx.db.read(work)


async def outgoing_page(
    ctx: Context, wanted: DeliveryFilter, cursor: str | None, limit: int
) -> tuple[list[Outgoing], dict[str, list[Attempt]], str | None]:
    """Return webhook deliveries, newest first, the attempts of each, and the cursor of the next page."""
    before = cursors.read(cursor)

    async def work(tx: Tx) -> tuple[list[Outgoing], dict[str, list[Attempt]], str | None]:
        rows, after = await webhook_lists.page(tx, wanted, before, limit)
        return rows, await webhook_attempts.of(tx, [row.id for row in rows], LISTED_CHARACTERS), after

    rows, attempts, after = await ctx.db.read(work)
    return rows, attempts, cursors.write(after)
