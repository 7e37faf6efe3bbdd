"""What a create request asks for: its body and headers, checked as Replicate checks them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from backend.emulator.kit.orders import Order, Work
from backend.emulator.kit.refusals import Refusal, WrongField, invalid, invalid_fields, not_found
from backend.emulator.kit.runs import EVENTS
from backend.emulator.replicate.models import MODELS, Model, find_version
from backend.emulator.replicate.problems import InvalidVersion
from backend.emulator.replicate.schema import check_input

_MEMBERS = ("input", "webhook", "webhook_events_filter", "stream")
_REFERENCES = ("image_input", "start_image", "end_image")
_DURATION = re.compile(r"(?:(\d{1,4})h)?(?:(\d{1,6})m)?(?:(\d{1,8})s?)?", re.ASCII)
_WAIT = re.compile(r"\bwait(?:=(\d{1,4}))?(?![\w=])", re.ASCII)
MIN_LIFE = timedelta(seconds=5)


def check(body: dict[str, Any], slug: str | None, request: Request) -> Order:
    """Raises a 404 or 422 Refusal. `slug` is None when the body names the version."""
    model = _model(body, slug)
    _check_members(body, _MEMBERS if slug else (*_MEMBERS, "version"))
    given = body.get("input")
    if not isinstance(given, dict):
        raise invalid("input", "required", "input is required")
    check_input(model, given)
    return Order(model.slug, _work(model, given), given, _webhook(body), _events(body), _life(request))


def _check_members(body: dict[str, Any], known: tuple[str, ...]) -> None:
    wrong = [
        WrongField("additional_property_not_allowed", name, f"Additional property {name} is not allowed")
        for name in body
        if name not in known
    ]
    if wrong:
        raise invalid_fields(wrong)


def _work(model: Model, given: dict[str, Any]) -> Work:
    """What the model makes of a checked input."""
    is_film, references = model.kind == "video", _references(given)
    picture = "image/png" if given.get("output_format") == "png" else "image/jpeg"
    words = {name: value for name, value in given.items() if name not in references and name != "image_input"}
    has_end, mode = bool(given.get("end_image")), given.get("mode", "standard")
    return Work(
        content_type="video/mp4" if is_film else picture,
        prompt=str(given.get("prompt", "")),
        ratio=given.get("aspect_ratio", "16:9" if is_film else None),
        references=references,
        start="start_image" if is_film else "image_input",
        end="end_image",
        mode=mode,
        duration_s=given.get("duration", 5),
        seed=[model.slug, words],
        fails_with="end_image needs mode pro" if has_end and mode != "pro" else None,
    )


def _references(given: dict[str, Any]) -> dict[str, str]:
    """Every URL of the input by its field; lists as `image_input`, `image_input.1`, ..."""
    references: dict[str, str] = {}
    for name in _REFERENCES:
        value = given.get(name) or []
        for number, url in enumerate([value] if isinstance(value, str) else value):
            references[f"{name}.{number}" if number else name] = url
    return references


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
        raise InvalidVersion
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
        raise Refusal(422, "other", "Cancel-After must be a duration of at least 5 seconds, such as 30s or 1h30m45s.")
    return life


def wait_s(request: Request) -> int | None:
    """Seconds of `Prefer: wait[=N]`, at most 60; None without it. Other preferences are not for us."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return min(60, max(1, int(match[1] or 60))) if match else None
