"""`reelhook list|show|watch|retry|cancel`: what a running service has, and what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from backend.cli.options import DEFAULT_URL, Json, Key, Out, Url, Wait
from backend.cli.output import plain, print_json, print_line, print_table, say, size
from backend.cli.remote import Address

Id = Annotated[str, typer.Argument(metavar="ID")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...")]
Some = Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help="Those to follow; without, every event.")]
Status = Literal["pending", "processing", "completed", "failed", "canceled"]


def list_(
    kind: Annotated[Literal["image", "video"] | None, typer.Option(help="Only these.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
    campaign: Annotated[str | None, typer.Option(metavar="ID", help="Of this campaign.")] = None,
    client: Annotated[str | None, typer.Option(metavar="ID", help="Of this client.")] = None,
    model: Annotated[str | None, typer.Option(help="Made by this model.")] = None,
    q: Annotated[str | None, typer.Option("--search", metavar="TEXT", help="With this in the prompt.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where the last page ended.")] = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List generations, the newest first."""
    query: dict[str, Any] = {"kind": kind, "status": status, "campaign_id": campaign, "client_id": client}
    query |= {"model": model, "q": q, "limit": limit, "cursor": cursor}
    page = asyncio.run(_page(Address(url, key), query))
    if json:
        return print_json(page)
    print_table(("id", "kind", "status", "created", "size", "prompt"), [_row(each) for each in page["items"]])
    if page["next_cursor"]:
        say(plain(f"more: --cursor {page['next_cursor']}"))


def show(id: Id, json: Json = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show everything about one generation."""
    generation = asyncio.run(_show(Address(url, key), id))
    if json:
        return print_json(generation)
    print_table(("field", "value"), [(name, value) for name, value in generation.items() if value not in (None, {})])


def watch(
    ids: Some = None,
    campaign: Annotated[str | None, typer.Option(metavar="ID", help="Without ids: what happens in this one.")] = None,
    client: Annotated[str | None, typer.Option(metavar="ID", help="Without ids: what this one's does.")] = None,
    out: Out = None,
    json: Json = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show generations live until all are finished; without ids every event, until it is stopped."""
    if ids:
        return _follow(ids, out, json, Address(url, key))
    if out:
        raise typer.BadParameter("--out goes with ids")
    if campaign and client:
        raise typer.BadParameter("give --campaign or --client, not both")
    from backend.cli import happening

    happening.tell(Address(url, key), campaign, client, json=json)


def _follow(ids: list[str], out: Path | None, json: bool, address: Address) -> None:
    from backend.cli import following

    following.prepare(out)

    async def run() -> list[dict[str, Any]]:
        async with address.open() as service:
            with following.shown(quiet=json) as show:
                ended = await following.follow(service, list(dict.fromkeys(ids)), show)
            return await following.bring(service, ended, out)

    _end(asyncio.run(run()), json)


def retry(
    id: Id, wait: Wait = False, out: Out = None, json: Json = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Ask for a failed or canceled generation again: a new one that names the old."""
    from backend.cli import following

    following.prepare(out)
    new = asyncio.run(_change(Address(url, key), "retry", id))
    if wait or out:
        return _follow([new["id"]], out, json, Address(url, key))
    print_json(new) if json else print_line(new["id"])


def cancel(ids: Ids, json: Json = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Stop generations that are not finished."""
    stopped = [asyncio.run(_change(Address(url, key), "cancel", id)) for id in ids]
    if json:
        return print_json({"items": stopped})
    for generation in stopped:
        print_line(f"{generation['id']} {generation['status']}")


async def _page(address: Address, query: dict[str, Any]) -> dict[str, Any]:
    async with address.open() as service:
        page = await service.generations_page(**query)
        return {"items": [each.raw for each in page.items], "next_cursor": page.next_cursor}


async def _show(address: Address, id: str) -> dict[str, Any]:
    async with address.open() as service:
        return (await service.generation(id)).raw


async def _change(address: Address, verb: Literal["cancel", "retry"], id: str) -> dict[str, Any]:
    async with address.open() as service:
        changed = await (service.cancel(id) if verb == "cancel" else service.retry(id))
        return changed.raw


def _end(ended: list[dict[str, Any]], json: bool) -> None:
    from backend.cli.following import tell_failures

    if json:
        print_json({"items": ended})
    else:
        for generation in ended:
            where = generation.get("file") or generation.get("url") or ""
            print_line(f"{generation['id']} {generation['status']} {where}".rstrip())
    if not tell_failures(ended):
        raise typer.Exit(1)


def _row(generation: dict[str, Any]) -> tuple[object, ...]:
    made = generation["created_at"][:19].replace("T", " ")
    prompt = generation.get("prompt") or ""
    short = prompt if len(prompt) <= 60 else prompt[:59] + "…"
    return generation["id"], generation["kind"], generation["status"], made, size(generation.get("bytes")), short
