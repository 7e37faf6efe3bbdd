"""What the stories need: a provider on a free port, and the service in a thread beside it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from emulating import Provider, emulating
from workshop import Workshop, working

from backend.core import ids
from backend.web.calls import streams
from backend.web.openai import waiting


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What hostile tests logged must be text that can be sent from one process to another."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


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
