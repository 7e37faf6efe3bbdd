"""Why a request is refused, in words that fit every provider; its description gives the refusal its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.core.errors import ReelhookError

Reason = Literal[
    "bad_json",
    "broken_body",
    "invalid",
    "no_credit",
    "not_found",
    "other",
    "throttled",
    "unauthenticated",
    "unavailable",
]


@dataclass(frozen=True)
class WrongField:
    """One field that cannot be taken; `name` is dotted from the body's root, `kind` is a word for programs."""

    kind: str
    name: str
    description: str


class Refusal(ReelhookError):
    """The emulated provider refuses the request.

    `status` is what most providers answer; a description may answer another one. `retry_after_s` belongs to
    "throttled" only, and `in_body` and `in_header` say where the client may be told of it.
    """

    fields: tuple[WrongField, ...] = ()
    retry_after_s: int | None = None
    in_body = True
    in_header = False

    def __init__(self, status: int, reason: Reason, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.headers = headers or {}


def unauthenticated() -> Refusal:
    return Refusal(401, "unauthenticated", "The key is missing or wrong.")


def no_credit() -> Refusal:
    return Refusal(402, "no_credit", "There is no credit left.")


def not_found(what: str) -> Refusal:
    return Refusal(404, "not_found", f"{what} not found")


def unavailable(status: int) -> Refusal:
    return Refusal(status, "unavailable", "Service is temporarily unavailable. Please try again later.")


def bad_json() -> Refusal:
    return Refusal(400, "bad_json", "The request body is not valid JSON.")


def throttled(retry_after: int, *, in_body: bool = True, in_header: bool = False) -> Refusal:
    """Come back in `retry_after` seconds; the arguments are those of the faults `create_429` and `get_429`."""
    refusal = Refusal(429, "throttled", "Request was throttled.")
    refusal.retry_after_s, refusal.in_body, refusal.in_header = retry_after, in_body, in_header
    if in_header:
        refusal.headers = {"retry-after": str(retry_after)}
    return refusal


def invalid_fields(fields: list[WrongField]) -> Refusal:
    """The detail names every field that is wrong."""
    refusal = Refusal(422, "invalid", "".join(f"- {field.name}: {field.description}\n" for field in fields))
    refusal.fields = tuple(fields)
    return refusal


def invalid(name: str, kind: str, description: str) -> Refusal:
    return invalid_fields([WrongField(kind, name, description)])
