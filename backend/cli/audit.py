"""`reelhook audit`: who changed what at a running service, for admins."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from backend.cli.options import DEFAULT_URL, Json, Key, Url
from backend.cli.output import json_text, plain, print_json, print_table, say
from backend.cli.remote import Address


def audit(
    action: Annotated[str | None, typer.Option(help="Only this, such as key.created.")] = None,
    client: Annotated[str | None, typer.Option(metavar="ID", help="What was changed of this client.")] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="ID", help="What was done with this key.")] = None,
    object_id: Annotated[str | None, typer.Option("--object", metavar="ID", help="What was done to this.")] = None,
    after: Annotated[str | None, typer.Option(metavar="TIME", help="Since then: 2026-11-21T10:00:00Z.")] = None,
    before: Annotated[str | None, typer.Option(metavar="TIME", help="Until then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended.")] = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List who changed what, the newest first; needs an admin key."""
    query = {"action": action, "client_id": client, "key_id": by, "object_id": object_id}
    query |= {"created_after": after, "created_before": before, "cursor": cursor}
    page = asyncio.run(_page(Address(url, key), query | {"limit": limit}))
    if json:
        return print_json(page)
    print_table(("at", "who", "action", "what", "old", "new"), [_row(each) for each in page["items"]])
    if page["next_cursor"]:
        say(plain(f"more: --cursor {page['next_cursor']}"))


async def _page(address: Address, query: dict[str, Any]) -> dict[str, Any]:
    async with address.open() as service:
        found: dict[str, Any] = await service.request("GET", "/api/v2/audit", query=query)
        return found


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    who = " ".join(str(entry[name]) for name in ("actor", "actor_name", "key_prefix", "address") if entry[name])
    what = entry["object_id"] or entry["object_type"]
    return entry["at"][:19].replace("T", " "), who, entry["action"], what, _short(entry["old"]), _short(entry["new"])


def _short(values: dict[str, Any] | None) -> str:
    text = json_text(values) if values else ""
    return text if len(text) <= 200 else text[:199] + "…"
