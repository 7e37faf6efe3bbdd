"""A real uvicorn on a free port, and a small site for the tests of the web layer."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import bcrypt
import uvicorn
from starlette.applications import Starlette
from waiting import until

from backend.context import Context
from backend.core.people import ApiKey, Caller
from backend.web.api import docs, health  # noqa: F401  both are served by every site
from backend.web.callers import limits
from backend.web.callers.attempts import Attempts
from backend.web.callers.keyring import Keyring
from backend.web.calls import metrics
from backend.web.calls.operation import OPERATIONS, Operation
from backend.web.calls.recent import Recent
from backend.web.calls.site import Site
from backend.web.server import stack
from backend.web.server.protocol import BoundedProtocol

KEY = "sk_" + "a" * 43
ADMIN_KEY = "sk_" + "b" * 43
OTHER_KEY = "sk_" + "c" * 43
DEV = Caller("dev", None, admin=True)


@dataclass
class Answer:
    """What came back over the socket; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Rows:
    """The key rows of a test, by prefix, and how often they were read."""

    by_prefix: dict[str, ApiKey] = field(default_factory=dict)
    reads: int = 0

    async def find(self, prefix: str) -> ApiKey | None:
        self.reads += 1
        return self.by_prefix.get(prefix)

    def add(self, key: str, *, client_id: str | None = "client-a", hash: str | None = None, **more: Any) -> ApiKey:
        made = hash if hash is not None else bcrypt.hashpw(key.encode(), bcrypt.gensalt(4)).decode()
        row = ApiKey(
            f"id-of-{key[3]}",
            client_id,
            "test",
            key[3:15],
            made,
            client_id is None,
            None,
            None,
            0,
            None,
            None,
        )
        self.by_prefix[key[3:15]] = replace(row, **more)
        return self.by_prefix[key[3:15]]


def make_site(rows: Rows, **more: Any) -> Site:
    """A site without a database: its keys are in `rows`."""
    attempts = more.pop("attempts", None) or Attempts()
    rates = {"write": "1000/minute"} | more.pop("rates", {"image": "3/minute", "video": "2/minute"})
    counters = limits.build(rates, more.pop("redis_url", None))
    keyring = Keyring(rows.find, lambda: time.time_ns() // 1_000_000, cost=4, attempts=attempts)
    find = more.pop("readiness", _never_ready)
    site = Site(ctx=cast(Context, Unconnected()), keyring=keyring, limits=counters, **more)
    object.__setattr__(site, "recent_readiness", Recent(find, 0.0))
    object.__setattr__(site, "recent_metrics", Recent(_counted, 0.0))
    return site


@dataclass(frozen=True)
class Unconnected:
    """The context of a site without a database: enough to turn away links that nobody signed."""

    data_key: bytes = b"k" * 32
    old_data_keys: tuple[bytes, ...] = ()
    db: None = None


async def _never_ready() -> Mapping[str, Any]:
    return {"ready": {"ok": False, "why": "there is nothing to be ready"}}


async def _counted() -> bytes:
    return metrics.render()


def make_rows() -> Rows:
    """One client's key and one admin's."""
    rows = Rows()
    rows.add(KEY)
    rows.add(ADMIN_KEY, client_id=None)
    return rows


def make_app(site: Site, operations: list[Operation]) -> Starlette:
    """The site's own operations (health, docs) and those of the test."""
    own = [made for made in OPERATIONS if made.auth == "none" and tuple(made.tags) in (("health",), ("docs",), ())]
    return stack.build(site, [*own, *operations])


def listen() -> socket.socket:
    """A listener on a free port whose connections do not hold small answers back.

    asyncio turns Nagle's algorithm off only where the protocol is named: else each answer in two pieces takes 40 ms.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


@contextmanager
def serve(app: Any, **options: Any) -> Iterator[int]:
    """Run the app in a thread; yields the port."""
    listener = listen()
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        lifespan="auto",
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def ask(
    port: int,
    method: str,
    path: str,
    *,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    json_body: Any = None,
    content: bytes | None = None,
) -> Answer:
    """One request on its own connection."""
    sent = dict(headers or {})
    if key is not None:
        sent["Authorization"] = f"Bearer {key}"
    if json_body is not None:
        content = json.dumps(json_body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, content, sent)
        got = connection.getresponse()
        return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
    finally:
        connection.close()


def raw(port: int, sent: bytes, *, timeout_s: float = 10.0) -> bytes:
    """Bytes on a socket, and all that comes back until it is closed or silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(sent)
        got = b""
        while chunk := connection.recv(65536):
            got += chunk
        return got
