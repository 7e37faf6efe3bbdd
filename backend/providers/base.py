"""The seam: what a provider must be able to do, in our terms. docs/adding-a-provider.md tells how to write one."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backend.core.outcomes import Outcome

if TYPE_CHECKING:
    from backend.http import Fetched, Http
    from backend.media.cage import Cage
    from backend.storage import Spool, Store


@dataclass(frozen=True)
class Means:
    """What a provider is built with: the guarded HTTP client, a place for files on their way, the time in ms.

    `store` and `cage` are for work that is done here: what is kept, and the place where foreign files are decoded.
    """

    http: Http
    spool: Spool
    now: Callable[[], int]
    store: Store
    cage: Cage


@dataclass(frozen=True)
class Order:
    """What one generation asks for. `id` is the generation's own; `inputs` have the provider's names.

    References in `inputs` are URLs by now; for a provider that is internal they are names in our store.
    `webhook_url` is None when the provider cannot reach us. After `cancel_after_s` seconds the provider is to stop by
    itself, if it can be told so.
    """

    id: str
    model: str
    inputs: Mapping[str, Any]
    webhook_url: str | None
    cancel_after_s: int


@dataclass(frozen=True)
class Request:
    """One create as it goes over the wire, without credentials. Equal orders make equal requests, so it can be hashed.

    `path` follows the provider's base URL, `body` is JSON text, `headers` are pairs.
    """

    path: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, path: str, body: Mapping[str, Any], **headers: str) -> Request:
        """A request with this JSON body. In a header's name `_` is for `-`. Raises ValueError for what is no JSON."""
        # The same text for the same order: what was sent is compared with what a list shows.
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return cls(path, text, tuple((name.replace("_", "-"), value) for name, value in headers.items()))

    def json(self) -> Any:
        """The body as it was before it became text."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Handle:
    """How a provider is asked about one prediction: by its id there, and by what else it gave out at the create."""

    id: str
    ref: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """A prediction found in the provider's own list. `created_at` is in milliseconds; the rest may be missing."""

    outcome: Outcome
    model: str | None
    inputs: Mapping[str, Any] | None
    webhook: str | None
    created_at: int


@dataclass(frozen=True)
class Word:
    """A webhook whose signature is right; `id` is the same each time it is sent."""

    id: str
    body: bytes


class Webhooks(Protocol):
    """The provider reports to a URL of ours, and signs what it sends."""

    async def open(self) -> None:
        """Ask for what is needed to verify, before the first webhook comes. Raises Unavailable."""
        ...

    def expect(self, headers: Mapping[str, str]) -> None:
        """Raise Unauthorized when no body could make these the headers of a webhook signed lately."""
        ...

    async def verify(self, headers: Mapping[str, str], body: bytes) -> Word:
        """Raise Unauthorized unless the provider signed exactly these bytes lately. Raises Unavailable."""
        ...

    def read(self, body: bytes) -> Outcome:
        """What a webhook's body says. Raises BadAnswer."""
        ...


class Listing(Protocol):
    """The provider tells which predictions it has: what an unclear create made can be found there."""

    async def between(self, since_ms: int, until_ms: int) -> Sequence[Listed]:
        """Every prediction made in that time. Raises ProviderUnavailable unless the list is complete."""
        ...

    def is_of(self, request: Request, listed: Listed) -> bool:
        """Whether this request may have made it. What the provider added, such as its defaults, does not count.

        The request was prepared without references: their URLs are other ones at every create.
        """
        ...


class Cancellation(Protocol):
    """The provider can be asked to stop a prediction."""

    async def cancel(self, handle: Handle) -> Outcome:
        """Ask for it, and tell how it stands now. Raises as `Provider.ask`."""
        ...


class Uploads(Protocol):
    """The provider has a store of its own, for files that its models are to read."""

    async def upload(self, path: Path, name: str, content_type: str) -> str:
        """Put a file there; the URL that its models can fetch.

        Raises ProviderUnavailable (try again) and ProviderRefused (it does not take this file).
        """
        ...


class Provider(ABC):
    """One account at a provider. None of its calls is ever repeated in here: whoever calls decides that.

    What only some providers can do is an object, or None for those which cannot.

    `repeatable`: a create costs nothing and leaves nothing behind there, so one whose answer was lost is sent again.
    `is_internal`: no request can ask for it, and its models are in no catalogue. `at_once`: so many creates run at a
    time in one worker; None where the limit in flight is the only one.
    """

    name: str
    label = ""  # tells several accounts at one provider apart; the first has none
    webhooks: Webhooks | None = None
    listing: Listing | None = None
    cancellation: Cancellation | None = None
    uploads: Uploads | None = None
    outputs_need_key = False  # whether its files are asked for with our credentials; a model of its own has none
    repeatable = False
    is_internal = False
    at_once: int | None = None

    @property
    def key(self) -> str:
        """The account's name wherever one is kept: `replicate`, or `replicate:label`."""
        return f"{self.name}:{self.label}" if self.label else self.name

    @abstractmethod
    def prepare(self, order: Order) -> Request:
        """The request that will be sent. Pure: no I/O, no clock. Raises InvalidInput for what cannot be asked."""

    @abstractmethod
    async def create(self, request: Request) -> Outcome:
        """Send it once; what was answered, with the prediction's id.

        Raises ProviderUnavailable (nothing was accepted), ProviderRefused (it never will be), ProviderUnclear (it may
        have been accepted and billed).
        """

    @abstractmethod
    async def ask(self, handle: Handle) -> Outcome:
        """How a prediction stands. Raises ProviderUnavailable, or ProviderRefused when it is not known there."""

    @abstractmethod
    async def fetch(self, url: str, target: Path, *, cap_bytes: int, total_s: float) -> Fetched:
        """Download one output into `target`, only from where this provider keeps them.

        Raises as `Http.fetch`.
        """

    @property
    def is_near(self) -> bool:
        """Whether it runs on this machine: then it reaches a loopback address of ours."""
        return False
