"""The routes: what each method sends, and how its answer is read. Pure, so both clients share it."""

from __future__ import annotations

import email.utils
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from reelhook import models
from reelhook.errors import BadAnswer, InvalidArgument, api_error
from reelhook.models import Asset, Campaign, Generation, Json, Page, WebhookEndpoint

T = TypeVar("T")
API = "/api/v2"
LONGEST_DATE = 64
PAGE = 100  # the most a list gives at once


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its JSON is read."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    file: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_json: bool = True


def get(path: str, read: Callable[[Any], T], query: Mapping[str, Any] | None = None) -> Call[T]:
    """Return a GET; values that are None are left out of its query."""
    return Call("GET", path, read, query=_query(query or {}))


def post(path: str, body: Mapping[str, Any], read: Callable[[Any], T], key: str | None = None) -> Call[T]:
    """Return a POST with an Idempotency-Key, so that it can be sent again after a lost answer."""
    return Call("POST", path, read, body=body, headers=_once(key))


def delete(path: str) -> Call[None]:
    """Return a DELETE."""
    return Call("DELETE", path, _nothing)


def any_request(method: str, path: str, query: Mapping[str, Any] | None, body: Mapping[str, Any] | None) -> Call[Any]:
    """Return a call of a route that has no method of its own; its JSON is given as it is."""
    if not path.startswith("/"):  # it could name another host
        raise InvalidArgument(f"{path!r} is no path: it begins with a slash")
    headers = _once(None) if method == "POST" else {}
    return Call(method, path, lambda raw: raw, query=_query(query or {}), body=body, headers=headers)


def generate(kind: str, wanted: Mapping[str, Any]) -> Call[Generation | list[Generation]]:
    """Ask for an image or a video. The answer is one generation, or a list when `copies` was given."""
    body = {name: value for name, value in wanted.items() if value is not None and name != "idempotency_key"}
    return post(f"{API}/generate/{kind}", body, _one_or_copies, wanted.get("idempotency_key"))


def generation(id: str) -> Call[Generation]:
    """Show one generation."""
    return get(f"{API}/generations/{segment(id)}", models.generation)


def generations(query: Mapping[str, Any], path: str = f"{API}/generations") -> Call[Page[Generation]]:
    """One page of generations."""
    return get(path, models.page(models.generation), query)


def of_campaign(id: str, kind: str, query: Mapping[str, Any]) -> Call[Page[Generation]]:
    """One page of a campaign's images or videos."""
    return generations(query, f"{API}/campaigns/{segment(id)}/generated-{kind}s")


def change(id: str, verb: str) -> Call[Generation]:
    """Cancel or retry one generation."""
    return post(f"{API}/generations/{segment(id)}/{verb}", {}, models.generation)


def delete_generation(id: str) -> Call[None]:
    """Remove one generation with its files."""
    return delete(f"{API}/generations/{segment(id)}")


def campaigns(query: Mapping[str, Any]) -> Call[Page[Campaign]]:
    """One page of campaigns."""
    return get(f"{API}/campaigns", models.page(models.campaign), query)


def create_campaign(wanted: Mapping[str, Any]) -> Call[Campaign]:
    """Make a new campaign."""
    return post(f"{API}/campaigns", _given(wanted), models.campaign)


def assets(query: Mapping[str, Any]) -> Call[Page[Asset]]:
    """One page of assets."""
    return get(f"{API}/assets", models.page(models.asset), query)


def upload_asset(path: Path, client_id: str | None) -> Call[Asset]:
    """Upload a file of this machine."""
    query = _query({"client_id": client_id})
    return Call("POST", f"{API}/assets", models.asset, query=query, file=path, headers=_once(None))


def webhook_endpoints(query: Mapping[str, Any]) -> Call[Page[WebhookEndpoint]]:
    """One page of webhook endpoints."""
    return get(f"{API}/webhook-endpoints", models.page(models.webhook_endpoint), query)


def create_webhook_endpoint(wanted: Mapping[str, Any]) -> Call[WebhookEndpoint]:
    """Make a new webhook endpoint; only this answer has its secret."""
    return post(f"{API}/webhook-endpoints", _given(wanted), models.webhook_endpoint)


def usage(
    group_by: str, since: date | str | None, until: date | str | None, campaign_id: str | None, client_id: str | None
) -> Call[Json]:
    """Ask what was made and what it cost."""
    query = {"group_by": group_by, "from": since, "to": until, "campaign_id": campaign_id, "client_id": client_id}
    return get(f"{API}/usage", dict, query)


def events_path(generation_id: str | None, campaign_id: str | None, client_id: str | None) -> str:
    """Return the path of the events of one thing, or of all that the key may see. Raises InvalidArgument."""
    given = {"generations": generation_id, "campaigns": campaign_id, "clients": client_id}
    those = [(noun, id) for noun, id in given.items() if id is not None]
    if len(those) > 1:
        raise InvalidArgument("give at most one of generation_id, campaign_id, client_id")
    return f"{API}/{those[0][0]}/{segment(those[0][1])}/events" if those else f"{API}/events"


def data_path(generation: Generation, file: int | None = None) -> str:
    """Return the path of its bytes. Its `url` may name another address of the service than this program can reach."""
    which = "" if file is None else f"?file={int(file)}"
    return f"{API}/{generation.kind}s/{segment(generation.id)}/data{which}"


def poster(generation: Generation) -> Call[bytes]:
    """Ask for a small JPEG of it."""
    return Call("GET", f"{API}/{generation.kind}s/{segment(generation.id)}/poster", bytes, is_json=False)


def answer(call: Call[T], status: int, headers: Mapping[str, str], content: bytes) -> T:
    """Return what the service said. Raises ApiError for a refusal, and BadAnswer when it is not Reelhook."""
    try:
        document = json.loads(content) if content else None
    except (ValueError, RecursionError):
        document = BadAnswer
    if status >= 400:
        problem = document if isinstance(document, dict) else {"detail": f"the service answered {status}"}
        raise api_error(status, problem, retry_after_s(headers.get("retry-after"), headers.get("date")))
    if status < 300 and not call.is_json:
        return call.read(content)
    try:
        if status >= 300 or document is BadAnswer:
            raise ValueError(status)
        return call.read(document)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise BadAnswer(
            f"{call.method} {call.path} was answered {status} with something else: is it Reelhook?"
        ) from None


def retry_after_s(text: str | None, said_at: str | None = None) -> float | None:
    """Return the seconds of a Retry-After, given as a number or a date; None when it cannot be read.

    `said_at` is the answer's own Date: a date is compared with the clock that wrote it.
    """
    told = (text or "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    until = _http_date_s(told)
    if until is None:
        return None
    theirs = _http_date_s((said_at or "").strip())
    return max(0.0, until - (time.time() if theirs is None else theirs))


def _http_date_s(text: str) -> float | None:
    """Return a date of HTTP in seconds. Its oldest form names no zone and means UTC."""
    if len(text) > LONGEST_DATE:
        return None
    try:
        at = email.utils.parsedate_to_datetime(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def segment(id: str) -> str:
    """Return an id as one part of a path. Raises InvalidArgument for what is no id: it could name another route."""
    if not id or not id.isascii() or not id.replace("-", "").replace("_", "").isalnum():
        raise InvalidArgument(f"{id!r} is not an id")
    return id


def header(name: str, value: str) -> str:
    """Return a value that a header can hold. Raises InvalidArgument."""
    if not value.isascii() or not value.isprintable():
        raise InvalidArgument(f"{name} holds characters that no header has")
    return value


def _one_or_copies(raw: Json) -> Generation | list[Generation]:
    if "items" in raw:
        return [models.generation(each) for each in raw["items"]]
    return models.generation(raw)


def _nothing(raw: object) -> None:
    return None


def _once(key: str | None) -> dict[str, str]:
    # Made here and not with each attempt: all attempts of one call must have one key, or each is paid.
    return {"Idempotency-Key": header("idempotency_key", key or uuid.uuid4().hex)}


def _given(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if value is not None}


def _query(given: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in given.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgument("give times with a time zone")
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else str(value)
