"""Replicate's webhooks: signed as Standard Webhooks say, with a secret of the account that the API tells."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from backend.core.errors import BadAnswer, ProviderUnavailable, SettingsError, Unauthorized, Unavailable
from backend.core.outcomes import Outcome
from backend.providers import reading, signatures
from backend.providers.base import Word
from backend.providers.over_http import looking

if TYPE_CHECKING:
    from backend.providers.replicate.api import Replicate

SECRET_LIFE_MS = 86_400_000
SECRET_AGE_MS = 60_000  # a wrong signature makes us ask again, not more often: strangers can send wrong ones
ASK_S = 10


class SignedWebhooks:
    """Verifies by the secrets that the operator named, else by the account's own, which is asked for."""

    def __init__(self, api: Replicate, secrets: Sequence[str]) -> None:
        self._api = api
        self._fixed = [signatures.read_secret(secret) for secret in secrets]
        self._secret: bytes | None = None  # the account's, when the operator named none
        self._asked_at = 0
        self._asking = asyncio.Lock()

    async def open(self) -> None:
        """Ask for the secret, so that the first webhook need not wait."""
        if not self._fixed:
            await self._key()

    def expect(self, headers: Mapping[str, str]) -> None:
        """Require an id, a time near now, and a signature."""
        signatures.read_stamp(headers, self._api.now())

    async def verify(self, headers: Mapping[str, str], body: bytes) -> Word:
        """Verify by any secret that the operator named, else by the account's, which may have changed since.

        It is asked for again after a wrong signature, and once a day: a secret that was replaced because others know it
        must not be believed for ever.
        """
        if self._secret and self._api.now() - self._asked_at > SECRET_LIFE_MS:
            with suppress(Unavailable):  # the present one stays while there is no answer
                await self._ask_secret()
        try:
            return await self._check(headers, body)
        except Unauthorized:
            if self._fixed or self._api.now() - self._asked_at < SECRET_AGE_MS:
                raise
            await self._ask_secret()
            return await self._check(headers, body)

    def read(self, body: bytes) -> Outcome:
        """Read the prediction, which is the whole body of a webhook."""
        try:
            return self._api.read(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise BadAnswer("the webhook's body is not JSON") from error

    async def _check(self, headers: Mapping[str, str], body: bytes) -> Word:
        first, *others = self._fixed or [await self._key()]
        return Word(signatures.verify(first, headers, body, self._api.now(), others=others), body)

    async def _key(self) -> bytes:
        return self._secret or await self._ask_secret()

    async def _ask_secret(self) -> bytes:
        """Ask for the secret and keep it. While there is no answer, the old one stays."""
        async with self._asking:
            if self._secret and self._api.now() - self._asked_at < SECRET_AGE_MS:
                return self._secret  # whoever was here before has just asked
            self._asked_at = self._api.now()
            try:
                with looking():
                    answer = await self._api.call("GET", "/webhooks/default/secret", total_s=ASK_S)
                    self._secret = signatures.read_secret(str(reading.member(answer.json(), "key")))
            except (ProviderUnavailable, SettingsError) as error:
                raise Unavailable("The webhook secret is not known yet.", retry_after=5) from error
            return self._secret
