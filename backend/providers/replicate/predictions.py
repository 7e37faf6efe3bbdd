"""Replicate's list of predictions, in which a create is found whose answer was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import structlog

from backend.core.errors import BadAnswer, ProviderUnavailable
from backend.providers import reading
from backend.providers.base import Listed, Request
from backend.providers.over_http import looking

if TYPE_CHECKING:
    from backend.providers.replicate.api import Replicate

PAGES = 40  # of 100 predictions: a search for one submit spans five minutes, 3,000 of them at 600 creates a minute

log = structlog.get_logger("backend.providers.replicate.predictions")


class Predictions:
    """The account's predictions, newest first."""

    def __init__(self, api: Replicate) -> None:
        self._api = api

    async def between(self, since_ms: int, until_ms: int) -> list[Listed]:
        """GET /predictions, page after page, until one is older than `since_ms`.

        Raises ProviderUnavailable when a page is missing: what stood on it would be given up as never made.
        """
        since, until = (quote(reading.write_time(at_ms)) for at_ms in (since_ms, until_ms))
        path: str | None = f"/predictions?created_after={since}&created_before={until}"
        found: list[Listed] = []
        for _ in range(PAGES):
            page = await self._page(path)
            listed = [one for item in page["results"] if (one := self._listed(item))]
            found += listed
            if junk := len(page["results"]) - len(listed):
                log.warning("list_unreadable", provider=self._api.name, predictions=junk)
            path = self._next(page.get("next"))
            # Newest first: what follows is older still, in case the server did not keep to the bounds.
            if path is None or (listed and 0 < listed[-1].created_at < since_ms):
                return found
        raise ProviderUnavailable("the provider's list has no end")

    def is_of(self, request: Request, listed: Listed) -> bool:
        """Return whether it has the same model, and every input as we sent it."""
        if (
            listed.inputs is None
            or listed.model is None
            or request.path != f"/models/{quote(listed.model)}/predictions"
        ):
            return False
        return all(listed.inputs.get(name) == value for name, value in request.json()["input"].items())

    async def _page(self, path: str | None) -> dict[str, Any]:
        with looking():
            answer = await self._api.call("GET", path or "")
            page = answer.json() if answer.status == 200 else None
        if not isinstance(page, dict) or not isinstance(page.get("results"), list):
            raise ProviderUnavailable("the provider's list cannot be read")
        return page

    def _next(self, url: object) -> str | None:
        """Return the next page's path, whatever host the list names: our token goes to the provider itself alone."""
        if not isinstance(url, str):
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ProviderUnavailable("the provider's list cannot be read") from None
        return f"{parts.path.removeprefix(urlsplit(self._api.base_url).path)}?{parts.query}"

    def _listed(self, item: Any) -> Listed | None:
        """Return one prediction of the list; None when it cannot be read. The others are read all the same."""
        try:
            outcome = self._api.read(item)
        except BadAnswer:
            return None
        inputs = item.get("input")
        return Listed(
            outcome=outcome,
            model=reading.text(item.get("model")),
            inputs=inputs if isinstance(inputs, dict) else None,
            webhook=reading.text(item.get("webhook")),
            # Without a time it is in no search: it is adopted by its webhook or not at all.
            created_at=reading.time_ms(item.get("created_at")) or 0,
        )
