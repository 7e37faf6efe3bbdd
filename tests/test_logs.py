from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
import structlog

from backend import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure(stream=stream)
    yield stream
    logs.configure()


SECRETS = [
    "Authorization: Bearer sk_CANARYCANARYCANARY",
    'headers={"Authorization": "Bearer abcCANARYabc"}',
    "headers={'authorization': 'Token CANARYCANARY'}",
    "authorization=Basic Q0FOQVJZCANARY==",
    "X-API-Key: sk_CANARYCANARY",
    "{'x-api-key': 'CANARYCANARY'}",
    "https://api.example.com/x?token=CANARY&b=1",
    "https://example.com/media?exp=1&sig=CANARYCANARY",
    "https://example.com/?api_key=CANARY",
    "https://example.com/?X-Amz-Signature=CANARY",
    "nonce=CANARY",
    "r8_CANARYCANARY",
    "whsec_CANARY+/CANARY=",
    "postgresql://user:CANARY@host/db",
    "redis://:CANARY@host:6379/0",
    "POST /webhooks/replicate/0190-id/CANARY HTTP/1.1",
    '{"password": "CANARY"}',
    '{"secret":"CANARY"}',
    "AIzaCANARYCANARYCANARY",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_secret_is_logged_by_anybody(out: io.StringIO, text: str) -> None:
    structlog.get_logger().info(text, field=text, deep={"a": [text]})
    logging.getLogger("some.library").warning("said %s", text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("other").exception("failed %s", text)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    for line in lines:
        assert "CANARY" not in line
        json.loads(line)


@pytest.mark.parametrize(
    "text",
    ["the token bucket is empty", "monkey=1", "sketch", "key facts: none", "https://example.com/a:b@c"],
)
def test_ordinary_words_stay(text: str) -> None:
    assert logs.redact(text) == text


HINTS = [
    "A valid API key is needed: send it as 'Authorization: Bearer sk_...' or 'X-API-Key'.",
    "X-API-Key: sk_...",
    "-H 'authorization: Bearer sk_...' -d '{}'",
    '{"headers": {"Authorization": "Bearer sk_...", "x-api-key": "sk_..."}}',
    "export REELHOOK_API_KEY=sk_... REPLICATE_API_TOKEN=r8_...",
    "REPLICATE_WEBHOOK_SECRET=whsec_...",
    "Authorization: Bearer ...",
]


@pytest.mark.hazard(49)
@pytest.mark.parametrize("text", HINTS)
def test_what_stands_for_a_key_in_a_hint_is_no_secret(text: str) -> None:
    assert logs.redact(text) == text
    assert json.loads(logs._write_line(None, "info", {"event": text}))["event"] == text


@pytest.mark.hazard(49)
@pytest.mark.parametrize("text", HINTS)
@pytest.mark.parametrize("end", ["CANARY", ".CANARY", "/CANARY", "=CANARY", "%43ANARY", "_CANARY", "~ANARY"])
def test_a_secret_that_begins_like_a_hint_is_one(text: str, end: str) -> None:
    assert "ANARY" not in logs.redact(text.replace("...", "..." + end))
    assert "ANARY" not in logs.redact(text.replace("...", "CANARYCANARYCANARYCANARY" + "..."))


STARTS = "x- x-a sk_ key_ data:a/ data: key token= authorization Authorization: :// ://a: ://a@ /webhooks/ /webhooks/a/"


@pytest.mark.hazard(49)
@pytest.mark.parametrize("unit", [*STARTS.split(), "sk_... ", "bearer ", "secret ", "%20", "\\n", '"', "AIza", "a."])
def test_looking_for_secrets_takes_no_more_than_its_share_of_a_longer_text(unit: str) -> None:
    def effort(length: int) -> float:
        text = "key " + unit * (length // len(unit))
        began = time.thread_time()
        logs.redact(text)
        return time.thread_time() - began

    short = min(effort(10_000) for _ in range(3)) + 0.0005
    assert min(effort(80_000) for _ in range(3)) < 24 * short, "eight times the text"


def test_a_field_of_a_megabyte_is_cut(out: io.StringIO) -> None:
    structlog.get_logger().info("long", field="x" * 1_000_000)
    assert len(out.getvalue()) < 2 * logs.MOST_CHARACTERS


def test_no_value_breaks_or_forges_a_line(out: io.StringIO) -> None:
    text = 'a\r\n{"event": "forged"}\x1b[31m\u2028\x00\ud800'
    structlog.get_logger().info("said", text=text)
    logging.getLogger("lib").warning("%s", text)
    lines = out.getvalue().split("\n")
    assert len(lines) == 3
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert json.loads(lines[0])["text"] == text


def test_a_log_nobody_can_take_stops_no_work() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream)
    stream.close()
    structlog.get_logger().info("lost")
    logging.getLogger("lib").warning("lost")
    logs.configure()


def test_the_request_lines_of_libraries_are_off(out: io.StringIO) -> None:
    for name in ("uvicorn.access", "httpx", "httpcore.http11"):
        logging.getLogger(name).info("GET /x?token=abc")
    logging.getLogger("uvicorn.error").info("started")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["started"]
