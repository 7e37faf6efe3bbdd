"""A provider's description: the little that the kit cannot know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from backend.emulator.kit.fault_kinds import KINDS
from backend.emulator.kit.refusals import Refusal
from backend.emulator.kit.runs import Run, new_id


@dataclass(frozen=True)
class Message:
    """One webhook: the same id and body at every attempt."""

    id: str
    event: str
    url: str
    run: Run
    body: str


@dataclass(frozen=True)
class Webhooks:
    """How a provider tells of its runs.

    `headers` gets the message and the secret, at every attempt anew. `default_events` are sent to whoever names
    none; `insistent` ones are sent again until they are taken.
    """

    body: Callable[[Run], Any]
    headers: Callable[[Message, str], dict[str, str]]
    default_events: tuple[str, ...] = ("completed",)
    insistent: tuple[str, ...] = ("completed",)


def _none(url: str, origin: str) -> str | None:
    return None


@dataclass(frozen=True)
class Provider:
    """What makes an emulator of the kit: the routes, how a run is shown, and how a request is refused.

    `noun` is its word for a run, and `interrupted` the error of one that broke at the provider. `base` is what
    clients put behind the emulator's address. `key_of` reads the client's key from a request. The outputs lie at
    `/output/{id}/{name}`, for everybody or for those who have the key. `upload_id` finds the id of an upload in a
    reference, given its URL and the emulator's address. `lacks` names faults that cannot happen to this provider;
    those of webhooks and lists follow from `webhooks` and `has_list`.
    """

    name: str
    routes: list[Route]
    show: Callable[[Run], Any]
    refuse: Callable[[Refusal], Response]
    key_of: Callable[[Request], str]
    api_key: str
    noun: str = "Run"
    interrupted: str = "The run was interrupted. Please try again."
    base: str = ""
    webhook_secret: str = ""
    webhooks: Webhooks | None = None
    has_list: bool = False
    outputs_need_key: bool = False
    upload_id: Callable[[str, str], str | None] = _none
    new_id: Callable[[], str] = new_id
    lacks: frozenset[str] = field(default_factory=frozenset)

    def can_suffer(self, kind: str) -> bool:
        """Whether this fault can happen to the provider at all."""
        stage = KINDS[kind].stage
        if self.webhooks is None and (stage == "webhook" or kind == "webhook_before_answer"):
            return False
        return kind not in self.lacks and (self.has_list or stage != "list")
