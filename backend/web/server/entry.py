"""The web application over a context, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import cast

import uvicorn
from starlette.applications import Starlette

from backend.config import Settings
from backend.context import Context
from backend.core.people import Caller
from backend.db import keys
from backend.web import routes
from backend.web.callers import limits
from backend.web.callers.keyring import Keyring
from backend.web.calls.site import Site
from backend.web.calls.streams import Places
from backend.web.server import stack
from backend.web.server.protocol import BoundedProtocol
from backend.web.server.sockets import most_connections

GRACE_S = 15
WEBHOOK_RATE_LIMIT = "100/minute"  # tests and replays of one key: each calls an address that anybody may have written
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def build(ctx: Context, dev_caller: Caller | None = None) -> Starlette:
    """Return the application over this context; with `dev_caller` nobody is asked for a key."""
    most = most_connections() * 3 // 4  # open streams: the rest of the connections is for requests
    site = Site(
        ctx=ctx,
        keyring=_keyring(ctx),
        limits=_limits(ctx.settings),
        trusted_proxies=ctx.settings.proxy_networks,
        dev_caller=dev_caller,
        places=Places(most, most * 2 // 3),
    )
    return stack.build(site, routes.operations())


def _keyring(ctx: Context) -> Keyring:
    return Keyring(
        lambda prefix: ctx.db.read(lambda tx: keys.by_prefix(tx, prefix)),
        ctx.now,
        learn=lambda id, fingerprint: ctx.db.write(lambda tx: keys.set_fingerprint(tx, id, fingerprint)),
    )


def _limits(settings: Settings) -> limits.Limits:
    defaults: dict[limits.Limited, str] = {
        "image": settings.image_rate_limit,
        "video": settings.video_rate_limit,
        "webhook": WEBHOOK_RATE_LIMIT,
        "write": settings.write_rate_limit,
    }
    return limits.build(defaults, settings.redis_url)


class Server(uvicorn.Server):
    """uvicorn that leaves the process alive after its stop: the worker still has to finish what it has in hand.

    `told` is called as soon as a signal comes, so that others can stop at the same time.
    """

    def __init__(self, config: uvicorn.Config, told: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._told = told

    def stop(self) -> None:
        """Take no new connection, answer what is being answered, and end."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            self._told()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at the first signal, and at once at the second.

        uvicorn's own method raises the signal again afterwards.
        """
        loop = asyncio.get_running_loop()
        for one in STOP_SIGNALS:
            loop.add_signal_handler(one, self.handle_exit, one, None)
        try:
            yield
        finally:
            for one in STOP_SIGNALS:
                loop.remove_signal_handler(one)
                # Else a second Ctrl-C would end the process while the worker finishes.
                loop.add_signal_handler(one, _ignore)


def _ignore() -> None:
    """Do nothing: the stop is under way."""


def config(app: Starlette) -> uvicorn.Config:
    """Return how uvicorn runs the application: it believes no header of a proxy, and its stop has a limit."""
    return uvicorn.Config(
        app,
        http=cast(type[BoundedProtocol], partial(BoundedProtocol, stopping=app.state.site.stop)),
        ws="none",
        log_config=None,
        access_log=False,  # it would print whole queries, and with them the signatures of links
        proxy_headers=False,  # whom we believe is said by TRUSTED_PROXIES alone (callers/peers.py)
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=most_connections(),
    )


def stop_on_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for one in STOP_SIGNALS:
        loop.add_signal_handler(one, stop)
