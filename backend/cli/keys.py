"""`reelhook keys create|list|revoke`: API keys, made and ended on the service's own database."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from backend.cli.options import Json
from backend.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from backend.context import Context
    from backend.core.people import ApiKey
    from backend.db.connection import Tx
    from backend.manage.keys import NewKey

T = TypeVar("T")
PAGE = 100

app = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.")


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    client: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose key it is; without it a new client of that name.")
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="A key that sees all clients.")] = False,
    campaign: Annotated[
        str | None, typer.Option(metavar="ID", help="Of requests to /v1 that name none; its client is the key's.")
    ] = None,
    json: Json = False,
) -> None:
    """Make a key. It is shown this once: only its hash is kept."""
    if client and admin:
        raise typer.BadParameter("an admin key belongs to no client: give --client or --admin")
    made = asyncio.run(_with_context(lambda ctx: _create(ctx, name, client, admin, campaign)))
    if json:
        return print_json({**_shown(made.row), "key": made.text})
    typer.echo(made.text)
    owner = "an admin key" if made.row.admin else f"of client {made.row.client_id}"
    say(f"key {made.row.id}, {owner}; keep it now, it is not shown again")


@app.command("list")
def list_(json: Json = False) -> None:
    """List keys, the newest first; never the keys themselves."""
    rows = [_shown(row) for row in asyncio.run(_with_context(_all))]
    if json:
        return print_json({"items": rows})
    print_table(("id", "name", "prefix", "client", "created", "revoked"), [tuple(row.values())[:6] for row in rows])


@app.command()
def revoke(id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """End a key: the next request with it is refused."""
    asyncio.run(_with_context(lambda ctx: _revoke(ctx, id)))
    say(f"key {id} is revoked")


async def _with_context(work: Callable[[Context], Awaitable[T]]) -> T:
    from backend.app import open_context
    from backend.config.loading import load

    async with open_context(load(), beside=True) as ctx:
        return await work(ctx)


async def _create(
    ctx: Context, name: str, client_id: str | None, admin: bool, campaign_id: str | None = None
) -> NewKey:
    from backend.db import audit
    from backend.manage import access, clients, keys

    user = audit.user()

    # Before the transaction: bcrypt takes 60 ms, in which nobody else could write.
    made = await asyncio.to_thread(keys.make, ctx, name, client_id, campaign_id=campaign_id)

    async def store(tx: Tx) -> NewKey:
        if client_id or admin:
            return replace(made, row=await keys.add(tx, ctx, user, made))
        if campaign_id:
            owner = (await access.campaign(tx, user, campaign_id)).client_id
        else:
            owner = (await clients.add_client(tx, ctx, user, name)).id
        theirs = replace(made, row=replace(made.row, client_id=owner, admin=False))
        return replace(theirs, row=await keys.add(tx, ctx, user, theirs))

    return await ctx.db.write(store)


async def _all(ctx: Context) -> list[ApiKey]:
    from backend.db import keys

    async def work(tx: Tx) -> list[ApiKey]:
        found: list[ApiKey] = []
        while page := await keys.page(tx, found[-1].id if found else None, PAGE):
            found += page
        return found

    return await ctx.db.read(work)


async def _revoke(ctx: Context, id: str) -> None:
    from backend.db import audit
    from backend.manage import keys

    user = audit.user()
    await ctx.db.write(lambda tx: keys.revoke(tx, ctx, user, id))


def _shown(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "prefix": f"sk_{row.prefix}...",
        "client_id": row.client_id,
        "created_at": _time(row.created_at),
        "revoked_at": _time(row.revoked_at),
        "admin": row.admin,
        "campaign_id": row.campaign_id,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
