"""The tools for language models at /mcp: each request with its own key, and no session between two of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from backend.core.errors import Forbidden, InvalidInput, NotFound, TooManyRequests, Unavailable
from backend.web import mcp
from backend.web.calls import auth, bodies
from backend.web.calls.operation import Call, operation
from backend.web.mcp.access import Access

if TYPE_CHECKING:
    from backend.web.mcp.serving import OverHttp

CAMPAIGN_HEADER = "X-Campaign-Id"
MOST = 200  # conversations at a time; each costs two connections and a client of its own
MOST_OF_ONE = 50
LOOK_S = 0.5
LAST_WORDS_S = 2.0  # in which those who wait are told how things stand, when the process stops

_open: Counter[str] = Counter()


@operation(
    "POST",
    "/mcp",
    answers={200: "application/json"},
    in_schema=False,
    idempotent=False,
    is_write=False,  # the tool that is called counts as what it asks for
    tags=["mcp"],
)
async def speak_mcp(call: Call) -> Response:
    """Answer one message of the Model Context Protocol."""
    if not mcp.is_installed():
        raise NotFound(f"Tools for language models are not served here: {mcp.HINT}.")
    _check_origin(call)
    _check_room(call.who.key_id)
    bodies.require_json_type(call.request)
    raw = await bodies.read(call.request)
    await bodies.check(raw)  # the library's own parser takes a key that comes twice
    tools = await asyncio.to_thread(_tools)  # the first time it imports a library, which takes half a second
    return _Conversation(call, tools, _access(call), raw)


@cache
def _tools() -> OverHttp:
    from backend.web.mcp.serving import OverHttp

    return OverHttp(bodies.CAP_BYTES)


def _check_origin(call: Call) -> None:
    """Raise Forbidden when a browser says that a page of another site asks."""
    settings = call.ctx.settings
    own = {_origin(settings.client_url), _origin(settings.public_url)}
    if any(_origin(given) not in own for given in call.request.headers.getlist("origin")):
        raise Forbidden("A page of another site asks.", code="foreign_origin")


def _origin(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}".lower()


def _check_room(key_id: str) -> None:
    """Raise Unavailable when too many conversations are open, TooManyRequests when this key has its share of them."""
    if _open.total() >= MOST:
        raise Unavailable("Too many calls of tools are open.", code="too_many_streams", retry_after=5)
    if _open[key_id] >= MOST_OF_ONE:
        message = f"This key has {MOST_OF_ONE} calls of tools open, which is its share."
        raise TooManyRequests(message, code="too_many_streams", retry_after=5)


def _access(call: Call) -> Access:
    """Return the access of the tools: they call the service as the caller, at the address that this request used."""
    request, site = call.request, call.site
    key = None if site.dev_caller else auth.read_key(request.headers)
    return Access(_own_url(request), key, _campaign_id(call), lambda: site.tail.stopped)


def _campaign_id(call: Call) -> str | None:
    given = call.request.headers.getlist(CAMPAIGN_HEADER)
    if len(given) > 1 or any(len(one) > 64 for one in given):
        raise InvalidInput.of(CAMPAIGN_HEADER, "Give one id.")
    return given[0] if given and given[0] else call.who.campaign_id


def _own_url(request: Request) -> str:
    host, port = request.scope["server"]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Conversation(Response):
    """The answer of the protocol's library. It may take as long as the tool that is called."""

    def __init__(self, call: Call, tools: OverHttp, access: Access, raw: bytes) -> None:
        super().__init__()
        self._tools, self._access, self._raw = tools, access, raw
        self._key_id = call.who.key_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give the library the body that was read, and then whether the client is still there."""
        rest: list[Message] = [{"type": "http.request", "body": self._raw, "more_body": False}]

        async def replay() -> Message:
            return rest.pop() if rest else await receive()

        _open[self._key_id] += 1
        try:
            await self._talk(asyncio.create_task(self._tools.answer(self._access, scope, replay, send)))
        finally:
            _open[self._key_id] -= 1
            if not _open[self._key_id]:
                del _open[self._key_id]

    async def _talk(self, answering: asyncio.Task[None]) -> None:
        """Wait for the answer. When the process stops it is given LAST_WORDS_S and then cancelled."""
        try:
            while not answering.done() and not self._access.is_stopping():
                await asyncio.wait({answering}, timeout=LOOK_S)
            await asyncio.wait({answering}, timeout=LAST_WORDS_S)
        finally:
            answering.cancel()  # which is nothing to one that is done
        if answering.done():
            answering.result()
