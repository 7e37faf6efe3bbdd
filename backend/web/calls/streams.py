"""Server-sent events, in answers that do not end by themselves. The number of open ones is limited."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from sse_starlette.sse import AppStatus, EventSourceResponse
from starlette.types import Receive, Scope, Send

from backend.core.errors import Forbidden, NotFound, Problem, TooManyRequests, Unauthorized, Unavailable
from backend.db.feed import Topic
from backend.live.listener import Told
from backend.live.tail import FINAL_TYPES, Tail
from backend.web.calls import metrics

BEAT_S = 15.0
LONGEST_S = 3600.0  # then it ends, and the listener comes back: to another process, if there is one by then
RETRY_MS = 2000
_ADMISSION_ENDED = (Unauthorized, Forbidden, NotFound)

# At a stop the library would cut streams off in the middle; the tail ends every one of ours as a whole answer.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


@dataclass
class Places:
    """How many streams may be open, and how many of one client. All other connections are for requests."""

    most: int = 3000
    most_of_one: int = 2000
    taken: int = 0
    by_client: Counter[str] = field(default_factory=Counter)

    def check(self, client: str) -> None:
        """Raise Unavailable when all places are taken, TooManyRequests when this client has its share."""
        if self.taken >= self.most:
            raise Unavailable("Too many event streams are open.", code="too_many_streams", retry_after=5)
        if self.by_client[client] >= self.most_of_one:
            message = f"This client has {self.most_of_one} event streams open, which is its share."
            raise TooManyRequests(message, code="too_many_streams", retry_after=5)

    def take(self, client: str) -> None:
        """Count one more stream."""
        self.taken += 1
        self.by_client[client] += 1
        metrics.STREAMS.inc()

    def leave(self, client: str) -> None:
        """Count one stream less."""
        self.taken -= 1
        self.by_client[client] -= 1
        if not self.by_client[client]:
            del self.by_client[client]
        metrics.STREAMS.dec()


@dataclass(frozen=True)
class StreamOrder:
    """What one stream tells: a topic from the event after `after` on, and only `types` of it if there are any.

    `admit` is called at every beat, and raises when the caller may not listen any more. `to_the_end` ends the stream
    with the last event of its generation; `is_final` says that this event has been already.
    """

    topic: Topic
    after: str
    admit: Callable[[], Awaitable[object]]
    types: frozenset[str] = frozenset()
    to_the_end: bool = False
    is_final: bool = False

    def ends_with(self, message: Told) -> bool:
        """Whether nothing comes after this message."""
        return self.to_the_end and message.type in FINAL_TYPES


class Stream(EventSourceResponse):
    """One open stream, which holds a place as long as it lasts. The tail ends it when the process stops."""

    def __init__(self, tail: Tail, wanted: StreamOrder, places: Places, client: str) -> None:
        super().__init__(_messages(tail, wanted), ping=0, sep="\n")
        del self.headers["connection"]  # whether it stays is the server's to say
        self._places, self._client = places, client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._places.take(self._client)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.leave(self._client)


async def _messages(tail: Tail, wanted: StreamOrder) -> AsyncIterator[bytes]:
    """Yield what is sent. A trouble of ours ends the stream: who comes back with the last id misses nothing.

    It begins with the id from which on it tells: so a listener knows one before the first event.
    """
    loop = asyncio.get_running_loop()
    began_at = beat_at = loop.time()
    yield b"id: %s\nretry: %d\n\n" % (wanted.after.encode(), RETRY_MS)
    with tail.subscribe(wanted.topic, wanted.after) as listener:
        while not listener.ended:
            try:
                found = await listener.more(max(beat_at + BEAT_S - loop.time(), 0.0))
            except Problem:
                return
            for message in found:
                if not wanted.types or message.type in wanted.types:
                    yield _frame(message)
                if wanted.ends_with(message):
                    return
            if (wanted.is_final and listener.caught_up) or loop.time() - began_at >= LONGEST_S:
                return
            if loop.time() - beat_at >= BEAT_S:
                beat_at = loop.time()
                if not await _is_admitted(wanted):
                    return
                yield b":\n\n"


async def _is_admitted(wanted: StreamOrder) -> bool:
    try:
        await wanted.admit()
    except _ADMISSION_ENDED:
        return False
    except Problem:
        pass  # nobody could say: asked again at the next beat
    return True


def _frame(message: Told) -> bytes:
    id = b"id: %s\n" % message.id.encode() if message.id else b""
    return b"%sevent: %s\ndata: %s\n\n" % (id, message.type.encode(), message.line)
