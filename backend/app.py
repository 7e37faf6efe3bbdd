"""Puts the parts together: the context, the web application and the worker, in one process or in two."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable

import structlog

from backend.config import Settings, is_loopback
from backend.context import Context, now_ms
from backend.core.errors import MediaUnavailable, ReelhookError, SettingsError
from backend.core.people import Caller
from backend.db import leases, webhook_claims
from backend.db.file import only_process
from backend.db.migrate import MigrationError, migrate
from backend.db.sqlite import SqliteDb, sqlite_path
from backend.disk import data_key, faults
from backend.http import Http
from backend.logs import output
from backend.manage import clients
from backend.media import threads
from backend.media.cage import Cage
from backend.providers import catalog, registry
from backend.providers.base import Means
from backend.storage import open_storage
from backend.upkeep.start import note_settings, open_providers, sweep_storage
from backend.web.server import entry
from backend.web.server.sockets import listen, raise_file_limit
from backend.worker import Worker, attempt

GRACE_S = 20
LAST_WORDS_S = 2.0  # in which clients are told 503, and /readyz why

log = structlog.get_logger("backend.app")


@contextlib.asynccontextmanager
async def open_context(settings: Settings, *, beside: bool = False) -> AsyncIterator[Context]:
    """Open a migrated database, the storage, and the providers that have keys. Raises SettingsError.

    `beside` a running service only small changes are made, and the log of the database file is left to the service.
    """
    path = sqlite_path(settings.database_url)
    try:
        await asyncio.to_thread(migrate, path)
    except MigrationError as error:
        raise SettingsError(f"DATABASE_URL: {error}") from error
    http, cage = Http(allow_networks=settings.allow_networks), Cage()
    db = await SqliteDb.open(path, checkpoints=not beside)
    try:
        known = catalog.load()
        spool, store = open_storage(settings.storage_url)
        yield Context(
            settings=settings,
            db=db,
            http=http,
            spool=spool,
            store=store,
            catalog=known,
            providers=registry.offered(settings, Means(http, spool, now_ms, store, cage), known.providers),
            data_key=await asyncio.to_thread(data_key.read, settings, path),
            old_data_keys=data_key.read_old(settings),
            cage=cage,
        )
    finally:
        await cage.close()
        await http.close()
        await db.close()


def check_dev_mode(settings: Settings, host: str) -> None:
    """Raise SettingsError when anybody but this machine could reach a service that asks for no key."""
    outside = [url for url in (settings.base_url, settings.ngrok_url) if url and not is_loopback(url)]
    if settings.dev and (outside or not is_loopback(host)):
        reachable = outside[0] if outside else host
        raise SettingsError(f"AUTH_MODE=dev is for this machine alone, and {reachable} is not: use keys")


async def serve(settings: Settings, host: str, port: int, *, with_worker: bool = True) -> None:
    """Run the service until it is told to stop. Prints one line when it is ready."""
    check_dev_mode(settings, host)
    threads.start()
    raise_file_limit()
    with only_process(sqlite_path(settings.database_url), "serve") as alone:
        listener = await asyncio.to_thread(listen, host, port)
        port = listener.getsockname()[1]
        async with open_context(settings.at_port(port)) as ctx:
            worker = Worker(ctx) if with_worker else None
            site = entry.build(ctx, await _dev_caller(ctx))
            running = entry.Server(entry.config(site), worker.stop if worker else None)
            running.config.load()
            _spare_the_collector()
            async with _ending_with_its_disk(worker), _background(ctx, worker, alone, running.stop):
                shown = f"[{host}]" if ":" in host else host
                print(f"reelhook is ready at http://{shown}:{port}", flush=True)
                await running.serve(sockets=[listener])


async def work(settings: Settings, kinds: tuple[str, ...]) -> None:
    """Run a worker alone, beside `serve --no-worker`, until it is told to stop."""
    threads.start()
    with only_process(sqlite_path(settings.database_url), "worker") as alone:
        async with open_context(settings) as ctx:
            worker = Worker(ctx, kinds)
            entry.stop_on_signals(worker.stop)
            async with _ending_with_its_disk(worker), _background(ctx, worker, alone, worker.stop):
                print("the worker is ready", flush=True)
                await worker.stopping.wait()


async def _dev_caller(ctx: Context) -> Caller | None:
    """Return the caller that every request has in dev mode; None when keys are asked for."""
    if not ctx.settings.dev:
        return None
    client = await ctx.db.write(lambda tx: clients.dev_client(tx, ctx))
    return Caller("dev", client.id, admin=True, kind="dev")


@contextlib.asynccontextmanager
async def _ending_with_its_disk(worker: Worker | None) -> AsyncIterator[None]:
    """End the process soon after its disk failed, in the middle of whatever it does.

    Nothing is closed in order: to close the database would write its log back to a disk that failed, or wait for that.
    """
    loop = asyncio.get_running_loop()

    def speak(why: str) -> None:
        ending = threading.Timer(LAST_WORDS_S, os._exit, (1,))
        ending.daemon = True
        ending.start()
        log.error("disk_failed", why=why)
        with contextlib.suppress(OSError):
            print(f"reelhook: the disk failed, so the service ends: {why}", file=sys.stderr, flush=True)
        if worker:
            loop.call_soon_threadsafe(worker.stop)

    with faults.watched(speak):
        try:
            yield
        finally:
            if faults.reason():
                output.finish(LAST_WORDS_S)
                os._exit(1)


@contextlib.asynccontextmanager
async def _background(
    ctx: Context, worker: Worker | None, alone: bool, stop: Callable[[], None]
) -> AsyncIterator[None]:
    """Run the worker, and what is done once after a start; at the end finish what is in hand.

    A worker that ends by itself ends the service by `stop`: else it would accept work that nobody does. Raises
    ReelhookError.
    """
    if worker and alone:
        await ctx.spool.sweep(0)  # before anybody writes there
        await ctx.db.write(lambda tx: leases.release_all(tx, ctx.now()))
        await ctx.db.write(lambda tx: webhook_claims.release_leases(tx, ctx.now()))
    tasks = [asyncio.create_task(_after_start(ctx, alone and worker is not None))]
    if worker:
        tasks.append(asyncio.create_task(_keep_working(worker, stop)))
    try:
        yield
    finally:
        if worker:
            worker.stop()
        tasks[0].cancel()
        await asyncio.wait(tasks, timeout=GRACE_S - (worker.stopping_s() if worker else 0))
    if worker and tasks[1].done() and (error := tasks[1].exception()):
        raise ReelhookError("the worker ended by itself, so the service ends too; the log says why") from error


async def _keep_working(worker: Worker, stop: Callable[[], None]) -> None:
    """Run the worker. If it ends before it is told to, `stop` the service."""
    try:
        await worker.run()
    finally:
        if not worker.stopping.is_set():
            log.error("worker_died", exc_info=True)
            stop()


async def _after_start(ctx: Context, alone: bool) -> None:
    """Do what is done once. An error of ours in one of these ends neither the others nor the service."""
    await attempt("note_settings", lambda: note_settings(ctx))
    await attempt("open_providers", lambda: open_providers(ctx))
    if alone:
        await attempt("sweep", lambda: sweep_storage(ctx))
    with contextlib.suppress(MediaUnavailable):  # which was logged; each file tries again
        await ctx.cage.warm()


def _spare_the_collector() -> None:
    """Keep the garbage collector out of what was imported: that is needed until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
