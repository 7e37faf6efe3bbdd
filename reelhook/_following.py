"""Streams of events, and waiting with them: what both clients decide in the same way."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping

from reelhook import _calls, models
from reelhook._patience import Patience, is_passing
from reelhook._sse import Message, Parser
from reelhook.errors import ApiError, BadAnswer, GenerationFailed, ReelhookError, WaitTimedOut
from reelhook.models import Event, Generation

SILENCE_S = 45.0  # three heartbeats of the service: after that the connection is dead
PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
ENDS = tuple(f"generation.{status}" for status in models.FINAL)

Progress = Callable[[Generation], object]


class Pauses:
    """Longer and longer pauses until something comes."""

    def __init__(self) -> None:
        self._next_s = PAUSE_S

    def reset(self) -> None:
        """Begin with short pauses again: something came."""
        self._next_s = PAUSE_S

    def next_s(self) -> float:
        """Return the seconds of the next pause, with jitter: a thousand listeners must not all come back at once."""
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, LONGEST_PAUSE_S)
        return pause_s * (1 + random.random()) / 2


class Feed:
    """Where a stream is, over all its connections: what was seen last, and when to connect again."""

    def __init__(self, last_event_id: str | None, patience: Patience) -> None:
        self.last_id = last_event_id
        self.lost: ReelhookError | None = None
        self.is_over = False
        self.pauses = Pauses()
        self._parser = Parser()
        self._first: Patience | None = patience

    def headers(self) -> dict[str, str]:
        """Return the headers that ask for everything after the last event that was seen."""
        seen = {"Last-Event-ID": _calls.header("last_event_id", self.last_id)} if self.last_id else {}
        return {"Accept": "text/event-stream", "Cache-Control": "no-store"} | seen

    def open(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin with a connection. From now on this stream is not given up when connections are lost."""
        self.is_over = status == 204  # nothing comes after the last id
        if not self.is_over and not headers.get("content-type", "").startswith("text/event-stream"):
            raise BadAnswer("the service answered with something else than events: is it Reelhook?")
        self._first = None
        self._parser = Parser(self.last_id)

    def take(self, chunk: bytes) -> list[Event]:
        """Return the events in these bytes; none in a heartbeat."""
        events = [_event(message) for message in self._parser.feed(chunk)]
        self.last_id = self._parser.last_id
        if events:
            self.pauses.reset()
        return events

    def pause_s(self) -> float:
        """Return the seconds until the next connection. Raises an error that waiting cannot cure."""
        error = self.lost
        if error is not None and self._first is not None:
            return self._first.pause_s(error)
        if error is not None and not is_passing(error):
            raise error
        told_s = error.retry_after_s if isinstance(error, ApiError) else None
        return max(self.pauses.next_s(), told_s or 0.0)


class Waiting:
    """A wait for one generation's end: its last known state, and the time that is left."""

    def __init__(self, of: Generation | str, timeout: float | None, on_progress: Progress | None) -> None:
        self.latest = of if isinstance(of, Generation) else None
        self.id = of.id if isinstance(of, Generation) else of
        self._ends_at = None if timeout is None else time.monotonic() + timeout
        self._on_progress = on_progress
        self._told: Generation | None = None
        self.pauses = Pauses()

    @property
    def left_s(self) -> float:
        """The seconds that are left; infinity without a timeout."""
        return float("inf") if self._ends_at is None else self._ends_at - time.monotonic()

    @property
    def silence_s(self) -> float:
        """The seconds for which a connection may be silent."""
        return max(0.01, min(SILENCE_S, self.left_s))

    def is_over(self, generation: Generation) -> bool:
        """Note a state, and report it when it is new; return whether it is the end."""
        self.latest = generation
        if self._on_progress is not None and generation != self._told:
            self._on_progress(generation)
        self._told = generation
        return generation.is_final

    def take(self, events: list[Event]) -> bool:
        """Note the states in these events of a stream; return whether one is the end."""
        if events:
            self.pauses.reset()
        return any(self.is_over(about) for each in events if (about := each.generation))

    def must_leave(self, silence_s: float) -> bool:
        """Whether a silent connection would be waited for beyond the end of the time. Raises WaitTimedOut."""
        self.check()
        return self.left_s < silence_s - 1 and self.left_s < SILENCE_S / 3

    def check(self) -> None:
        """Raise WaitTimedOut when the time is over."""
        if self.left_s <= 0:
            raise WaitTimedOut(self.id, self.latest)

    def pause_s(self) -> float:
        """Return the seconds until the next look. Raises WaitTimedOut."""
        self.check()
        return min(self.pauses.next_s(), max(0.0, self.left_s))

    def result(self, raise_on_failure: bool) -> Generation:
        """Return the generation at its end. With `raise_on_failure`, raises GenerationFailed when it has no result."""
        if self.latest is None or not self.latest.is_final:
            raise WaitTimedOut(self.id, self.latest)
        if raise_on_failure and self.latest.status != "completed":
            raise GenerationFailed(self.latest)
        return self.latest


def _event(message: Message) -> Event:
    try:
        return models.event(json.loads(message.data) | {"id": message.id})
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        raise BadAnswer("the service sent an event that cannot be read: is it Reelhook?") from None
