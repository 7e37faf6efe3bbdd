"""What the doctor looks at outside: the provider's API, the clock, the public address, who may ask."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from backend.cli.doctor.check import Check, State
from backend.config import Settings, is_loopback
from backend.core.errors import NetworkError
from backend.logs import redact

if TYPE_CHECKING:
    from backend.http import Http, HttpAnswer

SECRET_BYTES = 24
SKEW_S = 120  # signed webhooks are refused beyond five minutes
ASK_S = 10.0


async def replicate(settings: Settings, http: Http) -> list[Check]:
    """The key is accepted, webhooks can be verified, and the clocks agree."""
    secrets = settings.webhook_secrets
    if settings.replicate_api_key is None:
        advice = "not set: Replicate is not offered, nothing can be generated"
        return [Check("REPLICATE_API_KEY", "", State.WARN, advice), *_secret(secrets, asked=None)]
    try:
        account = await _ask(settings, http, "/account")
        asked = None if secrets else await _ask(settings, http, "/webhooks/default/secret")
    except NetworkError as error:
        return [Check("REPLICATE_BASE_URL", "", State.FAIL, f"no answer: {error.message}")]
    return [_account(account), *_secret(secrets, asked), _clock(account)]


async def _ask(settings: Settings, http: Http, path: str) -> HttpAnswer:
    key = settings.replicate_api_key.get_secret_value() if settings.replicate_api_key else ""
    headers = {"Authorization": f"Bearer {key}"}
    return await http.call("GET", settings.replicate_base_url + path, headers=headers, total_s=ASK_S)


def _account(answer: HttpAnswer) -> Check:
    if answer.status == 200:
        return Check("REPLICATE_API_KEY", "", State.OK, "accepted by the API")
    if answer.status in (401, 403):
        return Check("REPLICATE_API_KEY", "", State.FAIL, "refused by the API: copy it again from your account")
    return Check("REPLICATE_API_KEY", "", State.WARN, f"could not be tried: the API answered {answer.status}")


def _secret(secrets: Sequence[str], asked: HttpAnswer | None) -> list[Check]:
    name = "REPLICATE_WEBHOOK_SECRET"
    if not all(_is_secret(secret) for secret in secrets):
        return [Check(name, "", State.FAIL, f"must be whsec_ and the base64 of at least {SECRET_BYTES} bytes")]
    if secrets:
        told = "well formed" if len(secrets) == 1 else f"{len(secrets)}, well formed: any of them verifies"
        return [Check(name, "", State.OK, told)]
    if asked is None:
        return []
    if asked.status == 200:
        return [Check(name, "", State.OK, "not set: the API tells it at every start")]
    return [Check(name, "", State.WARN, f"the API does not tell it ({asked.status}): results are polled for")]


def _is_secret(text: str) -> bool:
    body = text.removeprefix("whsec_")
    try:
        return body != text and len(base64.b64decode(body, validate=True)) >= SECRET_BYTES
    except ValueError:
        return False


def _clock(answer: HttpAnswer) -> Check:
    """This clock against the other side's: leases and signatures depend on it."""
    try:
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        return Check("clock", "", State.OK, "the API did not say what time it is")
    skew_s = (datetime.now(UTC) - theirs.replace(tzinfo=theirs.tzinfo or UTC)).total_seconds()
    if abs(skew_s) > SKEW_S:
        advice = "set this machine's clock (NTP): webhooks are refused when the clocks differ by five minutes"
        return Check("clock", f"{skew_s:+.0f} s", State.FAIL, advice)
    return Check("clock", f"{skew_s:+.0f} s", State.OK, "agrees with the provider's")


async def addresses(settings: Settings, http: Http) -> list[Check]:
    """Whether providers can reach this service, and what happens when they cannot."""
    name = "NGROK_URL" if settings.ngrok_url else "BASE_URL"
    if is_loopback(settings.public_url):
        advice = "not public, which is fine: results are polled for and references travel by upload"
        return [Check(name, "", State.OK, advice)]
    try:
        answer = await http.call("GET", settings.public_url + "/healthz", total_s=ASK_S)
    except NetworkError as error:
        return [Check(name, "", State.WARN, f"nothing answers there ({error.message}): is the service running?")]
    if answer.status != 200:
        advice = f"/healthz answers {answer.status} there: does it lead to this service?"
        return [Check(name, "", State.WARN, advice)]
    if not settings.public_url.startswith("https:"):
        return [Check(name, "", State.WARN, "reachable, but without https: keys and media travel in the open")]
    return [Check(name, "", State.OK, "reachable: providers send webhooks there")]


async def access(settings: Settings) -> list[Check]:
    """Whether requests without a key are confined to this machine."""
    if not settings.dev:
        return [Check("AUTH_MODE", "", State.OK, "every request needs a key")]
    if is_loopback(settings.client_url) and not settings.ngrok_url:
        return [Check("AUTH_MODE", "", State.WARN, "no key is needed: for development on this machine only")]
    return [Check("AUTH_MODE", "", State.FAIL, "dev is refused unless BASE_URL is loopback and NGROK_URL not set")]


async def proxies(settings: Settings, http: Http, url: str) -> list[Check]:
    """Whether the running service is called through a proxy that it does not know.

    It is asked where clients reach it and at `url`: a proxy should keep its metrics to itself.
    """
    name = "TRUSTED_PROXIES"
    places = [f"{place}/metrics" for place in dict.fromkeys((settings.client_url, url))]
    counts = [await asked for asked in asyncio.as_completed([_forwarded(http, where) for where in places])]
    seen = max((count for count in counts if count is not None), default=None)
    if seen:
        advice = (
            "requests came through a proxy that it does not name: all clients behind it count as one address; the log "
            "names it (`untrusted_proxy`)"
        )
        return [Check(name, "", State.WARN, advice)]
    told = (
        "the running service saw no other"
        if seen == 0
        else f"no service could be asked at {redact(' or '.join(places))}"
    )
    advice = "your proxies, whose X-Forwarded-For is believed when failed attempts are counted by address"
    return [Check(name, "", State.OK, f"{advice}; {told}")]


async def _forwarded(http: Http, where: str) -> int | None:
    """How many forwarded requests the service there did not believe; None when there is none of ours."""
    try:
        answer = await http.call("GET", where, total_s=ASK_S)
    except NetworkError:
        return None
    return _untrusted(answer.body) if answer.status == 200 else None


def _untrusted(metrics: bytes) -> int | None:
    """How many forwarded requests were not believed, by a service's own count; None when that is none of ours."""
    found = re.search(rb"^reelhook_untrusted_forwarded_total (\d+)", metrics, re.MULTILINE)
    return int(found[1]) if found else None
