"""What the stories need: a provider on a free port, and the service in a thread beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulating import Provider, emulating
from workshop import Workshop, working


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
