from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import InvalidInput, InvalidJson, Problem
from backend.web.calls import bodies, strict_json

NOT_JSON = [
    b"",
    b"  \n",
    b"{",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    '{"a":1}'.encode("utf-16"),
    '{"a":1}'.encode("utf-32"),
    b'{"a":"\xff"}',
    b'{"a":"\xed\xa0\x80"}',
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b"[" * 33 + b"]" * 33 + b" ",
    b'{"a":NaN}',
    b'{"a":Infinity}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":-1e999}',
    b'{"a":1,"a":2}',
    b'{"a":{"b":1,"b":1}}',
    b"{'a':1}",
    b'{"a":1,}',
    b'{"a":1} x',
    b'{"a":"\x00"}',
    b'{"a":01}',
]
NOT_VALUES = [
    b'{"a":9223372036854775808}',
    b'{"a":-9223372036854775809}',
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":"\\u0000"}',
    b'{"\\u0000":1}',
    b'{"a":"\\ud800"}',
    b'{"a":["\\ud83d", "\\ude00"]}',
    b'{"a":{"b":["\\udfff"]}}',
]
FINE = [
    b"{}",
    b'{"a":9223372036854775807}',
    b'{"a":-9223372036854775808}',
    b'{"a":"\\ud83d\\ude00"}',
    b'{"a":"\\\\u0000"}',
    '{"a":"\u00e9\U0001f600"}'.encode(),
    b"[" * 32 + b"]" * 32,
    b'{"a":1e308}',
    b' {"a": null}\n',
]


@pytest.mark.hazard(42)
@pytest.mark.parametrize("body", NOT_JSON)
def test_a_body_that_is_not_plain_json_is_invalid_json(body: bytes) -> None:
    with pytest.raises(InvalidJson):
        strict_json.parse(body)


@pytest.mark.hazard(42, 43)
@pytest.mark.parametrize("body", NOT_VALUES)
def test_a_value_no_database_takes_is_invalid_input(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        strict_json.parse(body)


@pytest.mark.parametrize("body", FINE)
def test_plain_json_is_read(body: bytes) -> None:
    strict_json.parse(body)


@pytest.mark.hazard(42)
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_problem(body: bytes) -> None:
    try:
        strict_json.parse(body)
    except Problem as problem:
        assert problem.status in (400, 422)


async def test_a_large_body_is_checked_without_holding_the_loop() -> None:
    body = b"[" + b"1," * 500_000 + b"1]"
    began = time.perf_counter()
    strict_json.parse(body)
    alone_s = time.perf_counter() - began
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)  # what is measured is how late this wakes
            longest_s = max(longest_s, time.perf_counter() - before)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await bodies.check(body)
    await asyncio.sleep(0.01)  # so that the watcher wakes and measures
    watcher.cancel()
    assert longest_s < alone_s / 2
