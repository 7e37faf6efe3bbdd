"""Every URL of the service is on one page, and the page is what is served."""

from __future__ import annotations

import pytest

from backend.web import routes
from backend.web.api import health
from backend.web.calls.operation import OPERATIONS


def test_the_page_names_every_handler_once_with_its_own_method_and_path() -> None:
    assert [(made.method, made.path) for made in routes.operations()] == [(row[0], row[1]) for row in routes.PAGE]
    assert len(routes.operations()) == len(OPERATIONS)
    assert {id(made) for made in routes.operations()} == {id(made) for made in OPERATIONS}


def test_a_page_that_differs_from_a_handler_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PAGE", (("GET", "/readyz", health.healthz),))
    with pytest.raises(ValueError, match="the handler GET /healthz"):
        routes.operations()
