"""Webhooks to clients: who gets them, which secrets sign them, and when one is tried again. Pure: no I/O, no clock."""

from __future__ import annotations

import base64
import random
import re
import secrets
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
TEST = "webhook.test"  # the type of what somebody asks to be sent; no event

# How long after each failed attempt the next one comes; after the tenth there is none. It is the schedule that the
# Standard Webhooks specification proposes: three days in all, so a receiver may fail over a weekend.
SCHEDULE_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.2  # up to so much later: what failed together is not tried together
LONGEST_RETRY_AFTER_MS = 86_400_000
LONGEST_DATE = 64
LONGEST_WAIT_MS = int(SCHEDULE_S[-1] * (1 + JITTER) * 1000)
LONGEST_LIFE_MS = LONGEST_WAIT_MS * len(SCHEDULE_S)
PATIENCE_MS = 5 * 86_400_000  # an endpoint that fails so long is disabled
QUIET_MS = 36 * 3_600_000  # longer than any wait: when nothing was tried for so long, its failures begin anew
ROTATION_MS = 86_400_000  # both secrets sign for a day
MOST_SECRETS = 5  # that sign, when one rotation follows the other: an answer that was lost is asked for again
ANSWER_BYTES = 64 << 10
SHORT_ANSWER = 2_000  # characters that stay of an answer when a later one came


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a client wants to be told. `events` are types; none means all. Times are milliseconds.

    `old_secret` holds several, the youngest first and parted by spaces, when it was rotated again within a day.
    """

    id: str
    client_id: str
    url: str
    events: tuple[str, ...]
    secret: str
    old_secret: str | None
    old_secret_until: int | None
    failing_since: int | None
    disabled_at: int | None
    disabled_reason: str | None
    created_at: int

    def wants(self, type: str) -> bool:
        """Whether events of this type are sent to it."""
        return not self.events or type in self.events

    def signing(self, now: int) -> list[str]:
        """The secrets that sign now, the present one first."""
        return signing(self.secret, self.old_secret, self.old_secret_until, now)


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The secret that signs for the `webhook_url` of a client's requests; old ones are kept as those of an endpoint."""

    secret: str
    made_at: int | None
    shown_at: int | None
    old_secret: str | None
    old_secret_until: int | None

    def signing(self, now: int) -> list[str]:
        """The secrets that sign now, the present one first."""
        return signing(self.secret, self.old_secret, self.old_secret_until, now)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One delivery: an event, or a test, for one endpoint or for a generation's own `webhook_url`.

    `target` is what shares a queue. `attempts` counts claims; those that came to an end are `Attempt`s.
    """

    id: str
    event_id: str
    type: str
    subject: dict[str, Any] | None
    generation_id: str | None
    client_id: str
    endpoint_id: str | None
    url: str
    target: str
    replay_of: str | None
    status: str
    attempts: int
    event_at: int
    created_at: int
    due_at: int
    lease_owner: str | None
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: what the receiver answered, or in our words why there is no answer."""

    delivery_id: str
    number: int
    began_at: int
    duration_ms: int
    status_code: int | None
    answer: str | None
    error: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the receiver has it: it said so with a 2xx."""
        return self.status_code is not None and 200 <= self.status_code < 300


def signing(secret: str, old: str | None, old_until: int | None, now: int) -> list[str]:
    """Return the secrets that sign now: the present one, and during a rotation those before it."""
    return [secret, *(old or "").split()] if (old_until or 0) > now else [secret]


def retiring(signing_now: list[str]) -> str:
    """Return the secrets that go on signing beside a new one, as they are written into a row."""
    return " ".join(signing_now[: MOST_SECRETS - 1])


def new_secret() -> str:
    """Return a new secret of 32 random bytes in the form of Standard Webhooks."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def wait_ms(tries: int, at_least_ms: int = 0) -> int | None:
    """Return the milliseconds from the failed attempt of this number (from 1) to the next one; None after the last."""
    if tries > len(SCHEDULE_S):
        return None
    planned = SCHEDULE_S[tries - 1] * 1000 * (1 + random.uniform(0, JITTER))
    return int(max(planned, at_least_ms))


def retry_after_ms(text: str | None, now: int, date: str | None = None) -> int:
    """Return what `read_retry_after` does, or 0 when nothing can be read."""
    return read_retry_after(text, now, date) or 0


def read_retry_after(text: str | None, now: int, date: str | None = None) -> int | None:
    """Return the milliseconds that a Retry-After asks for, from 0 to a day; None when it cannot be read.

    `date` is the header Date of the same answer: a date is reckoned by the clock that wrote it.
    """
    told = (text or "").strip()
    if re.fullmatch(r"[0-9]{1,12}", told):
        return min(int(told) * 1000, LONGEST_RETRY_AFTER_MS)
    until = _http_date_ms(told)
    if until is None:
        return None
    theirs = _http_date_ms((date or "").strip())
    return min(max(until - (now if theirs is None else theirs), 0), LONGEST_RETRY_AFTER_MS)


def _http_date_ms(text: str) -> int | None:
    """A date in one of the three forms of RFC 9110, 5.6.7: the one of today, and two that are read for ever."""
    if len(text) > LONGEST_DATE:
        return None
    try:
        at = parsedate_to_datetime(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def kept_answer(body: bytes) -> str:
    """Return up to 64 kB of an answer as text. PostgreSQL takes no NUL, and neither takes half a character."""
    text = body[:ANSWER_BYTES].decode("utf-8", "replace").replace("\x00", "\ufffd")
    return text.encode()[:ANSWER_BYTES].decode("utf-8", "ignore")
