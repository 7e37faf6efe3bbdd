"""What a provider must be able to do, in our terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from backend.core.errors import AnswerTooLarge, BadAnswer, NotSent, ProviderUnavailable, ProviderUnclear, Unanswered
from backend.core.generation import Outcome


@dataclass(frozen=True)
class Submission:
    """One prediction to be made: what goes over the wire, and for how long it may run."""

    model: str
    inputs: Mapping[str, Any]
    webhook_url: str | None
    cancel_after_s: int


@dataclass(frozen=True)
class Listed:
    """A prediction found in the provider's own list. Times are milliseconds; `webhook` may be missing."""

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


class Provider(Protocol):
    """About five calls over plain HTTP. None of them is ever repeated here."""

    name: str
    base_url: str

    async def open(self) -> None:
        """Ask for what will be needed, such as a webhook secret. Raises Unavailable."""
        ...

    async def submit(self, submission: Submission) -> Outcome:
        """Create a prediction with one request.

        Raises ProviderUnavailable (nothing was accepted), ProviderRefused (it never will be), ProviderUnclear.
        """
        ...

    async def ask(self, provider_id: str) -> Outcome:
        """How a prediction stands. Raises ProviderUnavailable, or ProviderRefused when it is not known there."""
        ...

    async def cancel(self, provider_id: str) -> Outcome:
        """Ask for it to be stopped. Raises as `ask`."""
        ...

    async def list_between(self, since_ms: int, until_ms: int) -> list[Listed]:
        """Every prediction made in that time. Raises ProviderUnavailable unless the list is complete."""
        ...

    async def upload(self, path: Path, name: str, content_type: str) -> str:
        """Put a file into the provider's own store; the URL that its models can fetch. Raises as `submit`."""
        ...

    def expect(self, headers: Mapping[str, str]) -> None:
        """Raise Unauthorized when no body could make these the headers of a webhook signed lately."""
        ...

    async def verify(self, headers: Mapping[str, str], body: bytes) -> Word:
        """Raise Unauthorized unless the provider signed exactly these bytes lately."""
        ...

    def read(self, body: bytes) -> Outcome:
        """What a webhook's body says. Raises BadAnswer."""
        ...

    def may_serve(self, host: str, port: int, scheme: str) -> bool:
        """Whether outputs may be fetched from there."""
        ...

    def is_own(self, scheme: str, host: str, port: int) -> bool:
        """Whether this is the address the operator gave for the provider: reached even on a private network."""
        ...


@contextmanager
def creating() -> Iterator[None]:
    """Network troubles while something is created: only what was certainly not sent may be sent again."""
    try:
        yield
    except NotSent as error:
        raise ProviderUnavailable("the provider cannot be reached") from error
    except (Unanswered, BadAnswer, AnswerTooLarge) as error:
        raise ProviderUnclear from error


@contextmanager
def looking() -> Iterator[None]:
    """Network troubles while something is only looked at."""
    try:
        yield
    except (NotSent, Unanswered, BadAnswer, AnswerTooLarge) as error:
        raise ProviderUnavailable("the provider does not answer") from error
