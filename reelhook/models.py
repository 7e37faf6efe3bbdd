"""What the service answers, as frozen dataclasses. Fields they do not know yet are in `raw`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar

T = TypeVar("T")
Json = dict[str, Any]
Kind = Literal["image", "video"]
Status = Literal["pending", "processing", "completed", "failed", "canceled"]
FINAL = ("completed", "failed", "canceled")


@dataclass(frozen=True)
class Cost:
    """US dollars: what it should cost, and what it did."""

    estimated: float | None = None
    actual: float | None = None


@dataclass(frozen=True)
class Failure:
    """Why a generation failed. `retryable`: the same request could succeed later."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True)
class Media:
    """What the service could make of a file: `unread` is stored and not understood, `missing` is not stored."""

    state: str = "read"
    why: str | None = None


@dataclass(frozen=True)
class File:
    """One output of a generation; `index` is its place in the provider's answer. A missing one has no `url`."""

    index: int
    url: str | None = None
    content_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    media: Media = Media()


@dataclass(frozen=True)
class Generation:
    """One image or video that was asked for. `url` is set exactly when it is completed."""

    id: str
    kind: Kind
    status: Status
    stage: str
    client_id: str
    campaign_id: str
    provider: str
    model: str
    created_at: datetime
    progress: float | None = None
    batch_id: str | None = None
    retry_of: str | None = None
    prompt: str | None = None
    source: Json = field(default_factory=dict)
    params: Json = field(default_factory=dict)
    url: str | None = None
    poster_url: str | None = None
    content_type: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    media: Media = Media()
    files: list[File] = field(default_factory=list)
    cost_usd: Cost = Cost()
    error: Failure | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    possibly_charged: bool = False
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_final(self) -> bool:
        """Whether it has ended, in whichever way."""
        return self.status in FINAL


@dataclass(frozen=True)
class Campaign:
    """What generations are made for. Its budget is None without a bound; all in US dollars."""

    id: str
    client_id: str
    name: str
    created_at: datetime
    budget_usd: float | None = None
    spent_usd: float | None = None
    reserved_usd: float | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Asset:
    """A file that was brought to start from; `url` needs no key for a year."""

    id: str
    client_id: str
    kind: str
    url: str
    content_type: str
    bytes: int
    sha256: str
    created_at: datetime
    name: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class WebhookEndpoint:
    """An address that is told of events. `secret` is there once: in the answer that made or rotated it."""

    id: str
    url: str
    created_at: datetime
    events: list[str] = field(default_factory=list)
    enabled: bool = True
    secret: str | None = field(default=None, repr=False)
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Event:
    """Something that happened. `id` is None for progress, which is told live and never again."""

    id: str | None
    type: str
    created_at: datetime
    data: Json
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def generation(self) -> Generation | None:
        """The generation it is about, as it was then; None for other events."""
        return generation(self.data) if self.type.startswith("generation.") else None


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, newest first; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None


class Narrowing(TypedDict, total=False):
    """What every list of generations can be narrowed to."""

    status: Status
    stage: str
    provider: str
    model: str
    possibly_charged: bool
    created_after: datetime | str
    created_before: datetime | str
    q: str


class Filters(Narrowing, total=False):
    """What the list of all generations can be narrowed to."""

    kind: Kind
    client_id: str
    campaign_id: str
    batch_id: str


def generation(raw: Json) -> Generation:
    """A generation from its JSON."""
    cost = raw.get("cost_usd") or {}
    failure = raw.get("error")
    made = {
        "cost_usd": Cost(cost.get("estimated"), cost.get("actual")),
        "error": _known(Failure, failure) if failure else None,
        "media": _known(Media, raw.get("media") or {}),
        "files": [_known(File, each, media=_known(Media, each.get("media") or {})) for each in raw.get("files") or []],
        **_times(raw, "created_at", "submitted_at", "completed_at"),
    }
    return _known(Generation, raw, **made)


def campaign(raw: Json) -> Campaign:
    """A campaign from its JSON."""
    return _known(Campaign, raw, **_times(raw, "created_at"))


def asset(raw: Json) -> Asset:
    """An asset from its JSON."""
    return _known(Asset, raw, **_times(raw, "created_at"))


def webhook_endpoint(raw: Json) -> WebhookEndpoint:
    """A webhook endpoint from its JSON."""
    return _known(WebhookEndpoint, raw, events=list(raw.get("events") or []), **_times(raw, "created_at"))


def event(raw: Json) -> Event:
    """An event from the JSON of a stream or a webhook."""
    return _known(Event, {"id": None} | raw, **_times(raw, "created_at"))


def page(of: Callable[[Json], T]) -> Callable[[Json], Page[T]]:
    """A page of these from its JSON."""
    return lambda raw: Page([of(each) for each in raw["items"]], raw.get("next_cursor"))


def _known(shape: type[T], raw: Mapping[str, Any], **made: Any) -> T:
    """The fields this version knows; a newer service may say more, and all of it is kept as `raw`."""
    names = {each.name for each in fields(shape)}  # type: ignore[arg-type]  # every shape here is a dataclass
    known = {name: value for name, value in raw.items() if name in names} | made
    return shape(**known | ({"raw": dict(raw)} if "raw" in names else {}))


def _times(raw: Mapping[str, Any], *names: str) -> dict[str, datetime | None]:
    return {name: datetime.fromisoformat(raw[name]) if raw.get(name) else None for name in names}
