"""Listeners to event streams: real connections, read line by line, and coming back when they end."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from emulating import until


@dataclass
class Message:
    """One message as the standard reads it."""

    id: str | None
    type: str
    data: dict[str, Any]


@dataclass
class Ear:
    """One listener. `again`: it comes back with the last id it knows, until it is closed or answered 204."""

    origin: str
    path: str
    key: str | None = None
    last_id: str | None = None
    again: bool = False
    messages: list[Message] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""  # of an answer that is no stream
    beats: int = 0
    retry_ms: int | None = None
    open: bool = False  # it has begun: what happens from now on is heard
    ended: bool = False
    broken: bool = False  # it ended in the middle, or nobody was there

    def __post_init__(self) -> None:
        self._closing = threading.Event()
        self._line: socket.socket | None = None
        self._http = httpx.Client(base_url=self.origin, timeout=httpx.Timeout(30, read=60), trust_env=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def ids(self) -> list[str]:
        """The ids that were heard, each as often as it was."""
        return [one.id for one in self.messages if one.id]

    @property
    def types(self) -> list[str]:
        return [one.type for one in self.messages]

    def heard(self, type: str) -> list[Message]:
        return [one for one in self.messages if one.type == type]

    def close(self) -> None:
        self._closing.set()
        if self._line is not None:
            with suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)  # closing it alone would not wake the reader
        self._thread.join(10)
        self._http.close()

    def _listen(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen_once()
            except httpx.HTTPError:
                self.broken = True
            self.open = False
            if not self.again or self.statuses[-1:] == [204]:
                break
            self._closing.wait(0.1)
        self.ended = True

    def _listen_once(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= {"Last-Event-ID": self.last_id} if self.last_id else {}
        with self._http.stream("GET", self.path, headers=headers) as answer:
            self._line = answer.extensions["network_stream"].get_extra_info("socket")
            self.statuses.append(answer.status_code)
            self.headers = dict(answer.headers)
            if answer.status_code != 200:
                self.body = answer.read()
                return
            self._read(answer.iter_lines())

    def _read(self, lines: Iterator[str]) -> None:
        fields: dict[str, str] = {}
        for line in lines:
            if not line:
                self._dispatch(fields)
                fields = {}
            elif line.startswith(":"):
                self.beats += 1
            else:
                name, _, value = line.partition(": ")
                assert name not in fields, f"{name} came twice in one message"
                fields[name] = value

    def _dispatch(self, fields: dict[str, str]) -> None:
        self.last_id = fields.get("id", self.last_id)
        if "retry" in fields:
            self.retry_ms, self.open = int(fields["retry"]), True
        if "data" in fields:
            message = Message(fields.get("id"), fields["event"], json.loads(fields["data"]))
            self.messages.append(message)


@contextmanager
def listening(origin: str, path: str = "/api/v2/events", **more: Any) -> Iterator[Ear]:
    """Somebody who listens, from when the stream has begun or was refused."""
    ear = Ear(origin, path, **more)
    try:
        until(lambda: ear.open or ear.ended or ear.again)
        yield ear
    finally:
        ear.close()
