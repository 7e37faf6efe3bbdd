"""Logs: one JSON object for each line on standard error, with every secret taken out.

`output` and `outlet` let a process never wait for those who read them.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

MOST_CHARACTERS = 20_000  # of one field: looking for secrets takes a second for each megabyte

# Where a word begins, also after an escape of JSON or of a URL: of "\nsk_..." the n is no part of the word.
_EDGE = r"(?:(?<![A-Za-z0-9])|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4})|(?<=%[0-9A-Fa-f]{2}))"
# What a hint shows in place of a key: a beginning, three dots, and the end of the word.
_NO_HINT = r"(?!(?:sk_|r8_|whsec_|whsk_)?\.{3}(?:$|[\s\"'\\,)}\]&`]))"
# A pattern is tried where one of its words stands, in small letters: looking for plain words takes a tenth of the time.
_SECRETS: tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...] = (
    (("sk_", "r8_", "whs"), re.compile(_EDGE + r"(sk_|r8_|whsec_|whsk_)[A-Za-z0-9_+/=-]{6,}"), r"\1***"),
    (("key_",), re.compile(_EDGE + r"key_[A-Za-z0-9]{20,}"), "key_***"),
    (("aiza",), re.compile(_EDGE + r"AIza[A-Za-z0-9_-]{10,}"), "AIza***"),
    (("data:",), re.compile("(?i)" + _EDGE + r"(data:[\w.+-]+/[\w.+;=-]+,)[A-Za-z0-9+/=%_-]{16,}"), r"\1***"),
    # A name that promises a secret and its value: in a query, a header, JSON or a repr.
    (
        ("token", "sig", "key", "nonce", "secret", "password"),
        re.compile(
            rf"(?i){_EDGE}((?:x-)?(?:access_?|api_?|api-)?(?:token|sig|signature|key|nonce|secret|password))"
            r"(=|%3D|\\?[\"']\s*[:,]\s*b?\\?[\"'])" + _NO_HINT + r"[^&\s\"'\\,;)}\]]+"
        ),
        r"\1\2***",
    ),
    (
        ("authorization",),
        re.compile(
            "(?i)"
            + _EDGE
            + r"(authorization\\?[\"']?\s*[:=,]\s*\\?[\"']?)(?:(bearer|token|basic|key)\s+)?+"
            + _NO_HINT
            + r"[^\s\"'\\,}]+"
        ),
        r"\1\2 ***",
    ),
    (("bearer", "basic"), re.compile("(?i)" + _EDGE + r"((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}"), r"\1***"),
    (
        ("x-",),
        re.compile("(?i)" + _EDGE + r"(x-[a-z-]{0,40}(?:key|token|secret):\s*+)" + _NO_HINT + r"[^\s\"'\\,}]+"),
        r"\1***",
    ),
    (("://",), re.compile(r"(://[^\s/:@\"']*:)[^\s/@\"']+@"), r"\1***@"),
    (("://",), re.compile(r"(://)[^\s/:@\"'?#]+@"), r"\1***@"),
    (("/webhooks/",), re.compile(r"(/webhooks/[^/\s\"']+/[^/\s\"']+/)[^/?\s\"'\\]+"), r"\1***"),
)
_OUR_KEY_ID = 'key_id"'  # stands in every line of a request, and is no secret


def redact(text: str) -> str:
    """Return the text without API keys, tokens, signatures, nonces, passwords and Authorization values."""
    small = text.casefold().replace(_OUR_KEY_ID, "")
    for words, pattern, replacement in _SECRETS:
        if any(word in small for word in words):
            text = pattern.sub(replacement, text)
    return text


class _Target:
    """Standard error as it is at the moment, or one stream. A log that cannot be written stops no work."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write a whole line; a full disk or a closed pipe loses it."""
        with suppress(OSError, ValueError):
            (self._stream or sys.stderr).write(text)

    def flush(self) -> None:
        """Let the line be seen."""
        with suppress(OSError, ValueError):
            (self._stream or sys.stderr).flush()


def configure(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to one place in one form.

    Control characters leave as JSON escapes, so no value can forge or break a line.
    """
    target = _Target(stream)
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, target)),
        cache_logger_on_first_use=stream is None,
    )
    _route_standard_logging(level.upper(), target)


def _route_standard_logging(level: str, target: _Target) -> None:
    """Take over the root logger; libraries that print whole URLs are kept quiet."""
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _write_line,
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
        logging.getLogger(name).setLevel(logging.NOTSET)  # uvicorn leaves its own when it ran before
    # Below WARNING they print URLs with their whole query, and a signed link's permission is in there.
    for name in ("uvicorn.access", "httpx", "httpcore", "slowapi", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _write_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """The last processor: one line of ASCII JSON, redacted as a whole so that no field is forgotten."""
    event.pop("color_message", None)
    return redact(json.dumps({name: _shortened(value) for name, value in event.items()}, default=repr))


def _shortened(value: Any) -> Any:
    """Return a long text cut to what people read."""
    return value[:MOST_CHARACTERS] + "..." if isinstance(value, str) and len(value) > MOST_CHARACTERS else value


_SHARED: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
]
# One list for the life of the process: a logger keeps the list that it first used, so a second one would part them.
_PROCESSORS: list[Any] = [*_SHARED, structlog.processors.format_exc_info, _write_line]
