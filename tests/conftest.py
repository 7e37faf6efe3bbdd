"""What the stories need: a provider on a free port, and the service in a thread beside it."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import types
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trails
import uvicorn.server
from emulating import Provider, emulating
from httpx._transports import default
from workshop import Workshop, working

from backend.core import ids
from backend.web.calls import openapi, streams
from backend.web.calls.operation import Operation
from backend.web.openai import waiting


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows its services. All of it must be text that can be sent from one process to another."""
    report = yield
    if report.failed:
        report.sections += trails.sections()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    trails.forget()


@pytest.fixture(scope="session", autouse=True)
def servers_that_stop_soon() -> Iterator[None]:
    """uvicorn looks every 100 ms whether it is to stop, and waits 100 more: here a tenth of that, a thousand times.

    It offers no way to set it, so its module gets an `asyncio` whose `sleep` is shorter.
    """
    shorter = types.ModuleType("asyncio")
    vars(shorter).update(vars(asyncio), sleep=lambda seconds: asyncio.sleep(seconds / 10))  # uvicorn's, not a test's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", shorter)
        yield


@pytest.fixture(scope="session", autouse=True)
def descriptions_made_once() -> Iterator[None]:
    """Half the time a service takes to start goes into its OpenAPI description: the same operations give the same."""
    made: dict[tuple[int, ...], tuple[Sequence[Operation], bytes]] = {}
    make = openapi.document_bytes

    def made_once(operations: Sequence[Operation]) -> bytes:
        key = tuple(map(id, operations))
        if key not in made:
            made[key] = operations, make(operations)  # with what the ids are of, so that they stay theirs
        return made[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openapi, "document_bytes", made_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def certificates_read_once() -> Iterator[None]:
    """A client of httpx reads all the world's certificates, which takes longer than most requests of a test."""
    make = default.create_ssl_context
    known = functools.cache(lambda trust_env, *_: make(trust_env=trust_env))

    def made_once(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
        if verify is not True or cert is not None:
            return make(verify, cert, trust_env)
        return known(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default, "create_ssl_context", made_once)
        yield


@pytest.fixture(scope="module", autouse=True)
def ids_of_now() -> None:
    """A story that puts its clock forward leaves its process with ids of that time: the next module begins anew."""
    ids._last = 0


@pytest.fixture(scope="module")
def nobody_waits() -> Iterator[None]:
    """A stream ends when it has told what is there already, and images are not waited for: no worker makes them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "LONGEST_S", 0.0)
        patch.setattr(waiting, "WAIT_S", 0.0)
        yield


@pytest.fixture
def provider() -> Iterator[Provider]:
    with emulating() as provider:
        yield provider


@pytest.fixture
def shop(tmp_path: Path, provider: Provider) -> Iterator[Workshop]:
    """The service with its worker; providers can send webhooks to it. Audited at the end."""
    with working(tmp_path, provider) as shop:
        yield shop


@pytest.fixture
def bench(tmp_path: Path, provider: Provider) -> Iterator[Workshop]:
    """The service without a worker: the test takes each step itself."""
    with working(tmp_path, provider, worker=False) as bench:
        yield bench
