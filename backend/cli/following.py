"""Follows generations to their end by their events, and shows them as bars or as lines."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.cli.output import escape, plain, say

if TYPE_CHECKING:
    from reelhook import AsyncClient
    from reelhook import Generation as Followed

FINAL = ("completed", "failed", "canceled")
Generation = dict[str, Any]
Show = Callable[[Generation], None]


async def follow(service: AsyncClient, ids: list[str], show: Show) -> list[Followed]:
    """Follow each generation until all are final, and return their last states in the order of `ids`."""

    async def one(id: str) -> Followed:
        generation = await service.generation(id)
        show(generation.raw)
        return await service.wait(generation, on_progress=lambda now: show(now.raw))

    return await asyncio.gather(*(one(id) for id in ids))


def prepare(folder: Path | None) -> None:
    """Make the folder for downloads, before anything is asked for that costs money. Raises OSError."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


async def bring(service: AsyncClient, ended: list[Followed], folder: Path | None) -> list[Generation]:
    """Download all files of completed generations. Each is returned with the path of its first file as `file`."""
    if folder is None:
        return [each.raw for each in ended]
    return [await _bring(service, each, folder) for each in ended]


async def _bring(service: AsyncClient, ended: Followed, folder: Path) -> Generation:
    """Download the files of one generation.

    Each file is returned with its path as `file`, None when it is not stored.
    """
    if ended.status != "completed":
        return ended.raw | {"file": None}
    if not ended.files:  # an older service
        return ended.raw | {"file": str(await service.download(ended, folder))}
    paths = [
        str(await service.download(ended, folder, file=each.index)) if each.sha256 else None for each in ended.files
    ]
    files = [each | {"file": path} for each, path in zip(ended.raw["files"], paths, strict=True)]
    return ended.raw | {"file": next(path for path in paths if path), "files": files}


def tell_failures(generations: list[Generation]) -> bool:
    """Say for each generation without a result why that is, and return whether all are completed."""
    for generation in generations:
        if generation["status"] != "completed":
            reason = (generation.get("error") or {}).get("message")
            say(plain(f"{generation['id']} {generation['status']}" + (f": {reason}" if reason else "")))
    return all(generation["status"] == "completed" for generation in generations)


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Show]:
    """Yield what shows progress on standard error: bars at a terminal, else a line for each change of stage."""
    if quiet:
        yield lambda generation: None
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _lines()


def _lines() -> Show:
    stages: dict[str, str] = {}

    def show(generation: Generation) -> None:
        if stages.get(generation["id"]) != generation["stage"]:
            stages[generation["id"]] = generation["stage"]
            say(plain(f"{generation['kind']} {generation['id']}: {generation['stage']}"))

    return show


@contextmanager
def _bars() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[kind]:5}"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[stage]:10}"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(generation: Generation) -> None:
            task = tasks.get(generation["id"])
            if task is None:
                label, kind = escape(_label(generation)), plain(generation["kind"])
                task = tasks[generation["id"]] = progress.add_task(label, total=None, kind=kind, stage="")
            total, done = _fraction(generation)
            progress.update(task, total=total, completed=done, stage=plain(generation["stage"]))
            if generation["status"] in FINAL:
                progress.stop_task(task)

        yield show


def _fraction(generation: Generation) -> tuple[float | None, float]:
    """Return total and done for a bar. A bar of unknown progress has no total and only moves."""
    if generation["status"] in FINAL:
        return 1.0, 1.0
    progress = generation.get("progress")
    return (None, 0.0) if progress is None else (1.0, float(progress))


def _label(generation: Generation) -> str:
    text = str(generation.get("prompt") or generation["id"])
    return text if len(text) <= 32 else text[:31] + "…"
