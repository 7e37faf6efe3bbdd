"""What a create request asks for: its body and headers, checked as the provider checks them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from backend.emulator.kit.ledger import Create, shorten
from backend.emulator.kit.predictions import EVENTS, stamp
from backend.emulator.replicate.models import MODELS, Model, find_version
from backend.emulator.replicate.problems import Refusal, invalid, invalid_input, invalid_version, not_found
from backend.emulator.replicate.schema import check_input

_MEMBERS = ("input", "webhook", "webhook_events_filter", "stream")
_DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?", re.ASCII)
_WAIT = re.compile(r"\bwait(?:=(\d{1,4}))?(?![\w=])", re.ASCII)
MIN_LIFE = timedelta(seconds=5)


@dataclass(frozen=True)
class Order:
    """A valid create request."""

    model: Model
    input: dict[str, Any]
    webhook: str | None
    events: tuple[str, ...] | None
    life: timedelta | None


async def read_body(request: Request) -> dict[str, Any]:
    """The body as a JSON object; raises a 400 or 422 Refusal."""
    try:
        body = json.loads(await request.body(), parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()  # half a surrogate pair cannot be sent back
    except (ValueError, RecursionError) as wrong:
        raise Refusal(400, "The request body is not valid JSON.", title="Invalid JSON") from wrong
    if not isinstance(body, dict):
        raise invalid("", "invalid_type", "Invalid type. Expected: object")
    return body


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def write_down(body: dict[str, Any], slug: str | None) -> Create:
    """The entry for the ledger, as far as the request can be understood."""
    version, webhook, given = body.get("version"), body.get("webhook"), body.get("input")
    model = find_version(version) if isinstance(version, str) else None
    return Create(
        model=slug or (model.slug if model else str(version)[:100]),
        webhook=webhook if isinstance(webhook, str) else None,
        input=shorten(given) if isinstance(given, dict) else {},
        at=stamp(datetime.now(UTC)),
    )


def check(body: dict[str, Any], slug: str | None, request: Request) -> Order:
    """Raises a 404 or 422 Refusal. `slug` is None when the body names the version."""
    model = _model(body, slug)
    known = _MEMBERS if slug else (*_MEMBERS, "version")
    unknown = [name for name in body if name not in known]
    if unknown:
        raise invalid_input(
            [
                {
                    "type": "additional_property_not_allowed",
                    "field": name,
                    "description": f"Additional property {name} is not allowed",
                }
                for name in unknown
            ]
        )
    if not isinstance(body.get("input"), dict):
        raise invalid("input", "required", "input is required")
    check_input(model, body["input"])
    return Order(model, body["input"], _webhook(body), _events(body), _life(request))


def _model(body: dict[str, Any], slug: str | None) -> Model:
    if slug is not None:
        if slug not in MODELS:
            raise not_found("Model")
        return MODELS[slug]
    version = body.get("version")
    if not isinstance(version, str):
        raise invalid("version", "required", "version is required")
    model = find_version(version)
    if model is None:
        raise invalid_version()
    return model


def _webhook(body: dict[str, Any]) -> str | None:
    webhook = body.get("webhook")
    if webhook is None or webhook == "":
        return None
    try:
        if isinstance(webhook, str) and urlsplit(webhook).scheme in ("http", "https") and urlsplit(webhook).netloc:
            return webhook
    except ValueError:
        pass  # said below
    raise invalid("webhook", "format", "Does not match format 'uri'")


def _events(body: dict[str, Any]) -> tuple[str, ...] | None:
    events = body.get("webhook_events_filter")
    if events is None:
        return None
    if not isinstance(events, list) or any(event not in EVENTS for event in events):
        choices = ", ".join(f'"{event}"' for event in EVENTS)
        raise invalid("webhook_events_filter", "enum", f"webhook_events_filter must be among the following: {choices}")
    return tuple(events)


def _life(request: Request) -> timedelta | None:
    text = request.headers.get("cancel-after", "").strip()
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    life = timedelta()
    if match:
        hours, minutes, seconds = (int(digits or 0) for digits in match.groups())
        life = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    if life < MIN_LIFE:
        raise Refusal(422, "Cancel-After must be a duration of at least 5 seconds, such as 30s or 1h30m45s.")
    return life


def wait_s(request: Request) -> int | None:
    """Seconds of `Prefer: wait[=N]`, at most 60; None without it. Other preferences are not for us."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return min(60, max(1, int(match[1] or 60))) if match else None


def origin(request: Request) -> str:
    """How the client reached us; every URL it is given starts with this."""
    return f"{request.url.scheme}://{request.url.netloc}"
