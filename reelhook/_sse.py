"""Server-sent events: a parser for bytes as they come, by the WHATWG's rules for event streams."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from reelhook.errors import BadAnswer

LONGEST = 4 << 20  # characters of one message: a generation with its metadata stays far below


@dataclass(frozen=True)
class Message:
    """One message: its type, its data, and its id when it has one of its own."""

    type: str
    data: str
    id: str | None


class Parser:
    """Reads chunks that may be cut anywhere; `last_id` is the last id of a message that came whole."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode  # a BOM at the start is dropped
        self._after_cr = False
        self._rest: list[str] = []
        self._rest_size = 0
        self._type = ""
        self._id: str | None = None
        self._data: list[str] = []
        self._data_size = 0

    def feed(self, chunk: bytes) -> list[Message]:
        """Return the messages that are complete with this chunk. Raises BadAnswer for one without end."""
        *ended, rest = self._lines(self._decode(chunk))
        if ended:
            ended[0] = "".join((*self._rest, ended[0]))
            self._rest, self._rest_size = [], 0
        self._rest.append(rest)
        self._rest_size += len(rest)
        messages = [message for line in ended if (message := self._take(line))]
        if self._rest_size + self._data_size > LONGEST:
            raise BadAnswer("the service sent an event without end")
        return messages

    def _lines(self, text: str) -> list[str]:
        """Split at CR, LF and CRLF, which may be cut in two by the end of a chunk."""
        if text and self._after_cr:
            text, self._after_cr = text.removeprefix("\n"), False
        self._after_cr = self._after_cr or text.endswith("\r")
        return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_size += len(value) + 1
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Message | None:
        """End a message. Only now its id counts as seen: a message that was cut comes again."""
        if self._id is not None:
            self.last_id = self._id or None
        message = Message(self._type or "message", "\n".join(self._data), self._id or None) if self._data else None
        self._type, self._id, self._data, self._data_size = "", None, [], 0
        return message
