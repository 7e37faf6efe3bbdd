"""The wire, blocking. The same code as `_async`: a change belongs into both."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from reelhook import _calls, _files, _wire
from reelhook._address import Address
from reelhook._calls import Call
from reelhook._following import ENDS, SILENCE_S, Feed, Waiting
from reelhook._patience import Patience
from reelhook.errors import ReelhookError, Unreachable
from reelhook.models import Event, Generation

T = TypeVar("T")


class Wire:
    """Calls, files and streams of one service. Each is repeated where that is safe."""

    def __init__(self, address: Address, timeout: float, patience_s: float, fail_fast: bool) -> None:
        self._address = address
        self._timeout = timeout
        self._patience_s = patience_s
        self._fail_fast = fail_fast
        self._http = httpx.Client(**_wire.options(timeout))
        self._process = os.getpid()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def send(self, call: Call[T], within_s: float = float("inf")) -> T:
        """Return the answer to a call; `within_s` bounds how long it is tried."""
        patience = self._patience(within_s)
        while True:
            try:
                return self._send_once(call, within_s)
            except ReelhookError as error:
                if patience.is_done(call.method, error):
                    return call.read(None)
                time.sleep(patience.pause_s(error))

    def fetch(self, generation: Generation, to: str | Path | None, file: int | None) -> Path:
        """Download a finished file, check it, put it in its place, and return its path."""
        with closing(_files.Part(generation, to, file)) as part:
            patience, size = self._patience(), 0
            while True:
                try:
                    self._fetch_some(_calls.data_path(generation, file), part)
                    return part.finish()
                except Unreachable as error:
                    if part.is_whole:
                        return part.finish()
                    if part.size > size:  # some of it came: a large file over a bad line is not given up
                        patience, size = self._patience(), part.size
                    time.sleep(patience.pause_s(error))
                except ReelhookError as error:
                    time.sleep(patience.pause_s(error))

    def events(self, path: str, last_event_id: str | None, generation_id: str | None) -> Generator[Event]:
        """Yield events over any number of connections; those of one generation end with its end."""
        feed, had_ended = Feed(last_event_id, self._patience()), False
        while True:
            with closing(self._connect(path, feed, SILENCE_S)) as chunks:
                for events in chunks:
                    for event in events:
                        yield event
                        if generation_id and event.type in ENDS:
                            return
            if feed.lost is None and generation_id:
                if feed.is_over or had_ended:  # before this connection, which told all there was
                    return
                had_ended = self.send(_calls.generation(generation_id)).is_final
            time.sleep(feed.pause_s())

    def wait(self, waiting: Waiting) -> None:
        """Follow a generation's events to its end; ask for it when there is no stream."""
        feed = Feed(None, self._patience())
        while not self._listen(feed, waiting):
            # Whatever ended the stream: asking tells whether the service, the key or the generation is gone.
            waiting.check()
            try:
                if waiting.is_over(self.send(_calls.generation(waiting.id), waiting.left_s)):
                    return
            except Unreachable:
                waiting.check()
                raise
            time.sleep(waiting.pause_s())

    def _listen(self, feed: Feed, waiting: Waiting) -> bool:
        """Follow one connection; return whether it told the end."""
        silence_s = waiting.silence_s
        path = _calls.events_path(waiting.id, None, None)
        with closing(self._connect(path, feed, silence_s)) as chunks:
            for events in chunks:
                if waiting.take(events):
                    return True
                if waiting.must_leave(silence_s):
                    return False
        return False

    def _connect(self, path: str, feed: Feed, silence_s: float) -> Generator[list[Event]]:
        """Yield the events of each chunk, none in a heartbeat, until the connection ends; `feed.lost` then says why."""
        url = self._address.url + path
        headers = self._address.headers_for(url) | feed.headers()
        timeout = _wire.timeouts(silence_s)
        feed.lost = None
        try:
            with self._open(url, headers, timeout) as response:
                if response.status_code >= 300:
                    _wire.refuse(response, response.read())
                feed.open(response.status_code, response.headers)
                self._fail_fast = False
                for chunk in response.iter_raw():
                    yield feed.take(chunk)
        except ReelhookError as error:
            feed.lost = error

    def _send_once(self, call: Call[T], within_s: float) -> T:
        timeout = _wire.timeouts(_wire.UPLOAD_S if call.file else self._timeout, within_s)
        with ExitStack() as opened:
            file = opened.enter_context(call.file.open("rb")) if call.file else None
            with _wire.mapped(self._address.url):
                response = self._lines().request(**_wire.request(self._address, call, file), timeout=timeout)
        self._fail_fast = False
        return _calls.answer(call, response.status_code, response.headers, response.content)

    def _fetch_some(self, path: str, part: _files.Part) -> None:
        """Download as much as comes. Redirects are followed by hand, so that the key does not go to another host."""
        target: str | None = self._address.url + path
        hops = 0
        while target:
            headers = _wire.file_headers(self._address, target, part.headers())
            with self._open(target, headers, _wire.timeouts(self._timeout)) as response:
                target = _wire.redirected(response, hops)
                hops += 1
                if target is None:
                    if response.status_code >= 300:
                        _wire.refuse(response, response.read())
                    part.open(response.status_code, response.headers)
                    for chunk in response.iter_raw():
                        part.write(chunk)

    @contextmanager
    def _open(self, url: str, headers: dict[str, str], timeout: httpx.Timeout) -> Iterator[httpx.Response]:
        with _wire.mapped(url), self._lines().stream("GET", url, headers=headers, timeout=timeout) as response:
            yield response

    def _lines(self) -> httpx.Client:
        """Return the connections; new ones after a fork, as the parent's answers would come over the old ones."""
        if self._http.is_closed:
            raise ReelhookError("this client is closed")
        if self._process != os.getpid():
            self._http, self._process = httpx.Client(**_wire.options(self._timeout)), os.getpid()
        return self._http

    def _patience(self, within_s: float = float("inf")) -> Patience:
        return Patience(min(self._patience_s, within_s), fail_fast=self._fail_fast)
