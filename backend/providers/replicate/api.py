"""Replicate's HTTP API (https://api.replicate.com/openapi.json, version 1.0.0-a1, read 2026-11-21)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import structlog

from backend.config import is_loopback
from backend.core.catalog import ProviderFacts
from backend.core.errors import BadAnswer, ProviderUnavailable, SettingsError, Unauthorized, Unavailable
from backend.core.generation import Outcome
from backend.http import Http
from backend.providers import base, signatures
from backend.providers.replicate import answers

PAGES = 40  # of 100 predictions: a search for one submit spans five minutes, 3,000 of them at 600 creates a minute
SECRET_LIFE_MS = 86_400_000
SECRET_AGE_MS = 60_000  # a wrong signature makes us ask for the secret again, this seldom
_URL = re.compile(r"https?://[!-~]{1,2000}")

log = structlog.get_logger("backend.providers.replicate.api")


class Replicate:
    """One account at Replicate, or at whatever speaks its protocol at `base_url`."""

    name = "replicate"

    def __init__(
        self,
        http: Http,
        facts: ProviderFacts,
        *,
        base_url: str,
        token: str,
        secrets: Sequence[str],
        now: Callable[[], int],
    ) -> None:
        self.base_url = base_url
        self._http, self._facts, self._now = http, facts, now
        self._headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
        self._fixed = [signatures.read_secret(secret) for secret in secrets]
        self._secret: bytes | None = None  # the account's, when the operator named none
        self._asked_at = 0
        self._asking = asyncio.Lock()

    async def submit(self, submission: base.Submission) -> Outcome:
        """POST /models/{owner}/{name}/predictions, once."""
        body: dict[str, Any] = {"input": dict(submission.inputs)}
        if submission.webhook_url:
            body |= {"webhook": submission.webhook_url, "webhook_events_filter": ["start", "completed"]}
        url = f"{self.base_url}/models/{quote(submission.model)}/predictions"
        headers = self._headers | {"cancel-after": f"{submission.cancel_after_s}s"}
        with base.creating():
            answer = await self._http.call("POST", url, headers=headers, json=body, total_s=60)
            if answer.status not in (200, 201, 202):
                raise answers.refusal(answer, self._now())
            return self._read(answer.json())

    async def ask(self, provider_id: str) -> Outcome:
        """GET /predictions/{id}."""
        return await self._look("GET", f"/predictions/{quote(provider_id, safe='')}")

    async def cancel(self, provider_id: str) -> Outcome:
        """POST /predictions/{id}/cancel."""
        return await self._look("POST", f"/predictions/{quote(provider_id, safe='')}/cancel")

    async def list_between(self, since_ms: int, until_ms: int) -> list[base.Listed]:
        """GET /predictions, page after page."""
        since, until = (quote(answers.write_time(at_ms)) for at_ms in (since_ms, until_ms))
        url: str | None = f"{self.base_url}/predictions?created_after={since}&created_before={until}"
        found: list[base.Listed] = []
        for _ in range(PAGES):
            page = await self._page(url)
            listed = [one for item in page["results"] if (one := self._listed(item))]
            found += listed
            if junk := len(page["results"]) - len(listed):
                log.warning("list_unreadable", provider=self.name, predictions=junk)
            url = self._own_page(page.get("next"))
            if url is None or (listed and 0 < listed[-1].created_at < since_ms):
                return found
        raise ProviderUnavailable("the provider's list has no end")

    async def upload(self, path: Path, name: str, content_type: str) -> str:
        """POST /files."""
        with base.looking():  # a file uploaded twice costs nothing
            answer = await self._http.call(
                "POST",
                f"{self.base_url}/files",
                headers=self._headers,
                files={"content": (name, path, content_type)},
                total_s=300,
            )
            if answer.status not in (200, 201):
                raise answers.upload_refusal(answer, self._now())
            url = answers.member(answer.json(), "urls", "get")
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise ProviderUnavailable("the provider did not say where the file is")
        return url

    def expect(self, headers: Mapping[str, str]) -> None:
        """Its id, time and signature have to be there, and the time has to be now."""
        signatures.read_stamp(headers, self._now())

    async def verify(self, headers: Mapping[str, str], body: bytes) -> base.Word:
        """By any secret the operator named, else by the account's, asked again when it seems to have changed.

        It is also asked once a day: one that was given up because others know it is not believed for ever.
        """
        if self._secret and self._now() - self._asked_at > SECRET_LIFE_MS:
            with suppress(Unavailable):  # the present one stays while there is no answer
                await self._ask_secret()
        try:
            return await self._check(headers, body)
        except Unauthorized:
            if self._fixed or self._now() - self._asked_at < SECRET_AGE_MS:
                raise
            await self._ask_secret()
            return await self._check(headers, body)

    async def open(self) -> None:
        """Ask for the webhook secret, so that the first webhook need not wait. Raises Unavailable."""
        if not self._fixed:
            await self._key()

    def read(self, body: bytes) -> Outcome:
        """The body of a webhook is the prediction itself."""
        try:
            return self._read(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise BadAnswer("the webhook's body is not JSON") from error

    def may_serve(self, host: str, port: int, scheme: str) -> bool:
        """Replicate's delivery hosts over https, or the place the operator gave as its API."""
        if self.is_own(scheme, host, port):
            return True
        names = [pattern.removeprefix("*.") for pattern in self._facts.output_hosts]
        return scheme == "https" and port == 443 and any(host == n or host.endswith("." + n) for n in names)

    def is_own(self, scheme: str, host: str, port: int) -> bool:
        """Whether this is `base_url`'s origin, when that is not the public API."""
        own = urlsplit(self.base_url)
        own_port = own.port or (443 if own.scheme == "https" else 80)
        same_host = host == own.hostname or (is_loopback(host) and is_loopback(self.base_url))
        return scheme == own.scheme and port == own_port and same_host

    async def _look(self, method: str, path: str) -> Outcome:
        with base.looking():
            answer = await self._http.call(method, self.base_url + path, headers=self._headers, total_s=30)
            if answer.status >= 300:
                raise answers.trouble(answer, self._now())
            return self._read(answer.json())

    async def _page(self, url: str | None) -> dict[str, Any]:
        with base.looking():
            answer = await self._http.call("GET", url or "", headers=self._headers, total_s=30)
            page = answer.json() if answer.status == 200 else None
        if not isinstance(page, dict) or not isinstance(page.get("results"), list):
            raise ProviderUnavailable("the provider's list cannot be read")
        return page

    def _own_page(self, url: object) -> str | None:
        """The next page, only at the provider itself: our token goes along."""
        if not isinstance(url, str):
            return None
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ProviderUnavailable("the provider's list cannot be read") from None
        own = urlsplit(self.base_url)
        return f"{own.scheme}://{own.netloc}{parts.path}?{parts.query}"

    async def _check(self, headers: Mapping[str, str], body: bytes) -> base.Word:
        first, *others = self._fixed or [await self._key()]
        return base.Word(signatures.verify(first, headers, body, self._now(), others=others), body)

    async def _key(self) -> bytes:
        return self._secret or await self._ask_secret()

    async def _ask_secret(self) -> bytes:
        """Ask for the secret and keep it; while there is no answer, the old one stays."""
        async with self._asking:
            if self._secret and self._now() - self._asked_at < SECRET_AGE_MS:
                return self._secret  # whoever was here before has just asked
            self._asked_at = self._now()
            try:
                with base.looking():
                    url = f"{self.base_url}/webhooks/default/secret"
                    answer = await self._http.call("GET", url, headers=self._headers, total_s=10)
                    self._secret = signatures.read_secret(str(answers.member(answer.json(), "key")))
            except (ProviderUnavailable, SettingsError) as error:
                raise Unavailable("The webhook secret is not known yet.", retry_after=5) from error
            return self._secret

    def _listed(self, item: Any) -> base.Listed | None:
        """One prediction of the list; None when it cannot be read, which is no reason to read no other."""
        try:
            outcome = self._read(item)
        except BadAnswer:
            return None
        inputs, webhook, model = item.get("input"), item.get("webhook"), item.get("model")
        return base.Listed(
            outcome=outcome,
            model=model if isinstance(model, str) else None,
            inputs=inputs if isinstance(inputs, dict) else None,
            webhook=webhook if isinstance(webhook, str) else None,
            created_at=answers.time_ms(item.get("created_at")) or 0,
        )

    def _read(self, prediction: Any) -> Outcome:
        return answers.outcome(prediction, self._now(), self._facts.output_lifetime_s * 1000)
