"""What happens, told as it happens: streams of server-sent events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import pydantic
from pydantic import Field
from starlette.responses import Response

from backend.core.errors import InvalidInput
from backend.core.events import EVENT_TYPES
from backend.core.generation import FINAL
from backend.core.ids import floor_id, is_id
from backend.core.people import Caller
from backend.db.feed import Topic
from backend.live.tail import PROGRESS
from backend.steps import browse
from backend.web.calls import auth
from backend.web.calls.inputs import Query
from backend.web.calls.operation import Call, operation
from backend.web.calls.streams import Stream, StreamOrder

TYPES = (*EVENT_TYPES, PROGRESS)
ANSWERS = {200: "text/event-stream"}
Id = Annotated[str, Field(min_length=1, max_length=200)]
BEGINNING = floor_id(0)  # before every event there is
Find = Callable[[Caller], Awaitable[Topic]]


def _known(types: list[str]) -> list[str]:
    names = [name.strip() for given in types for name in given.split(",")]
    if not all(name in TYPES for name in names):
        raise ValueError(f"must be of {', '.join(TYPES)}")
    return names


class Listening(Query):
    """Which events are told, and after which one."""

    type: Annotated[list[str], Field(max_length=20), pydantic.AfterValidator(_known)] = Field(
        default=[], description="only these types; several are repeated or separated by commas"
    )
    last_event_id: str | None = Field(
        None, max_length=200, description="as the header Last-Event-ID, for those who cannot send one"
    )


class ListeningToAll(Listening):
    """The same, perhaps of one client, campaign or generation alone."""

    client_id: Id | None = None
    campaign_id: Id | None = None
    generation_id: Id | None = None


@operation("GET", "/api/v2/events", query=ListeningToAll, answers=ANSWERS, tags=["events"], errors=[404])
async def stream_events(call: Call) -> Response:
    """Stream what happens from now on, or after the event that `Last-Event-ID` names.

    A client's key is told of its own client alone.
    """
    query: ListeningToAll = call.query
    given = {name: value for name in _TOPICS if (value := getattr(query, name))}
    if len(given) > 1:
        raise InvalidInput.of(" and ".join(given), "Give one of them.")
    name, id = next(iter(given.items()), ("client_id", call.who.only_client))
    if id is None:
        return await _stream(call, _everything)
    return await _TOPICS[name](call, id)


@operation("GET", "/api/v2/clients/{id}/events", query=Listening, answers=ANSWERS, tags=["events"])
async def stream_client_events(call: Call) -> Response:
    """Stream what happens at one client."""
    return await _of_client(call, call.path["id"])


@operation("GET", "/api/v2/campaigns/{id}/events", query=Listening, answers=ANSWERS, tags=["events"])
async def stream_campaign_events(call: Call) -> Response:
    """Stream what happens in one campaign."""
    return await _of_campaign(call, call.path["id"])


@operation("GET", "/api/v2/generations/{id}/events", query=Listening, answers={**ANSWERS, 204: None}, tags=["events"])
async def stream_generation_events(call: Call) -> Response:
    """Stream one generation's events from the first to the last, which ends the stream.

    204 when the event that `Last-Event-ID` names was the last one: a browser then does not come back.
    """
    return await _of_generation(call, call.path["id"])


async def _of_client(call: Call, id: str) -> Response:
    async def find(who: Caller) -> Topic:
        return Topic("client", (await browse.client(call.ctx, who, id)).id)

    return await _stream(call, find)


async def _of_campaign(call: Call, id: str) -> Response:
    async def find(who: Caller) -> Topic:
        return Topic("campaign", (await browse.campaign(call.ctx, who, id)).id)

    return await _stream(call, find)


async def _of_generation(call: Call, id: str) -> Response:
    given = _last_event_id(call)
    row = await browse.generation(call.ctx, call.who, id)
    topic, is_final = Topic("generation", row.id), row.status in FINAL
    after = await _place(call, topic, given) if given else BEGINNING
    if given and is_final and not await browse.has_events(call.ctx, topic, after):
        return Response(status_code=204)

    async def admit() -> None:
        await browse.generation(call.ctx, await auth.authenticate(call.request), id)

    wanted = StreamOrder(topic, after, admit, frozenset(call.query.type), to_the_end=True, is_final=is_final)
    return _open(call, wanted)


async def _everything(_who: Caller) -> Topic:
    return Topic()


_TOPICS = {"client_id": _of_client, "campaign_id": _of_campaign, "generation_id": _of_generation}


async def _stream(call: Call, find: Find) -> Response:
    """Tell from now on, or after an event that was told before. The stream ends when the key is no longer valid."""
    given = _last_event_id(call)
    topic = await find(call.who)
    after = await _place(call, topic, given)

    async def admit() -> None:
        await find(await auth.authenticate(call.request))

    return _open(call, StreamOrder(topic, after, admit, frozenset(call.query.type)))


async def _place(call: Call, topic: Topic, given: str | None) -> str:
    """Return the id of the event after which the stream begins.

    It is the last event of this topic. The last of all events would tell when something happened at another client. An
    id from the future, as there is after a restore, would keep the stream silent until then.
    """
    last = await call.site.tail.last_id(topic) or BEGINNING
    return min(given, last) if given else last


def _open(call: Call, wanted: StreamOrder) -> Response:
    client = call.who.only_client or ""  # all admin keys share one number of places
    call.site.places.check(client)
    return Stream(call.site.tail, wanted, call.site.places, client)


def _last_event_id(call: Call) -> str | None:
    """Return the id in the header, or else in the query; an empty one is none. Raises InvalidInput."""
    sent = call.request.headers.getlist("last-event-id")
    given = sent or [call.query.last_event_id or ""]
    if len(given) > 1 or not (given[0] == "" or is_id(given[0])):
        raise InvalidInput.of("Last-Event-ID" if sent else "last_event_id", "Give the id of one event.")
    return given[0] or None
