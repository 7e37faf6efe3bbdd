"""What is done once after a start, beside the work."""

from __future__ import annotations

from dataclasses import replace

import structlog

from backend import __version__
from backend.context import Context
from backend.core.errors import ReelhookError
from backend.db import audit
from backend.db.audit import Subject
from backend.upkeep import orphans

log = structlog.get_logger("backend.upkeep.start")


async def open_providers(ctx: Context) -> None:
    """Let each provider ask for what it needs, such as its webhook secret. Without it results are polled for."""
    if not ctx.offered:
        log.warning("no_provider", why="no provider has a key: nothing can be generated; see `reelhook doctor`")
    for provider in ctx.providers.values():
        try:
            if provider.webhooks:
                await provider.webhooks.open()
        except ReelhookError as error:
            log.warning("provider_not_ready", provider=provider.name, why=error.message)


async def sweep_storage(ctx: Context) -> None:
    """Remove the files that a crash left without a row, and log how many."""
    swept = await orphans.sweep_orphans(ctx)
    if swept.trusted:
        log.info("storage_swept", removed=swept.removed, kept=swept.kept)
    else:
        log.error("storage_not_swept", unknown=swept.unknown, why="is DATABASE_URL the right one?")


async def note_settings(ctx: Context) -> None:
    """Write into the audit log what this process runs with. A full disk does not stop the service."""
    told, caller = {"version": __version__, **ctx.settings.told()}, replace(audit.user(), kind="system")
    subject = Subject("settings", None)
    try:
        await ctx.db.write(
            lambda tx: audit.record(tx, caller, "settings.started", subject, ctx.now(), new=told),
        )
    except ReelhookError as error:
        log.warning("settings_not_noted", why=error.message)
