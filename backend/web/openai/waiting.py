"""Requests that wait for their result, as long as the sender is there and its connection may be idle."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import ClientDisconnect

from backend.core.errors import Conflict, InvalidInput, NotFound, Problem, ProviderFailed, Unavailable
from backend.core.generation import ACTIVE, COMPLETED, Failure, Generation
from backend.manage import idempotency
from backend.manage.idempotency import Idempotency, Reply
from backend.web.calls import presence
from backend.web.calls.operation import Call

WAIT_S = 120.0
AGAIN_S = 1
_OF_THE_INPUT = frozenset({"invalid_input", "moderated", "source_failed"})
_PASSING = frozenset({"provider_unavailable", "rate_limited"})


async def results(call: Call, name: Idempotency, answer: Reply) -> list[Generation]:
    """Return the generations that are completed, when all of the answer's have ended.

    Raises the problem of the first one when none is completed, Unavailable while one is unfinished after WAIT_S, and
    ClientDisconnect when the sender left. In the last two cases they are `owed` to the next equal request, whoever
    sends it: nobody was given what is paid for.
    """
    ids: Sequence[str] = answer.body["ids"]
    kept = {name: value for name, value in answer.body.items() if name != "owed"}
    owed = kept | {"owed": True}
    if answer.replayed:
        await idempotency.renew(call.ctx, name, owed, kept)  # to this one, and not to the next as well
    try:
        rows = await _wait(call, ids)
    except ClientDisconnect:
        # What was made is paid for: the next equal request gets it and does not make it again.
        await idempotency.renew(call.ctx, name, kept, owed)
        raise
    if any(row.status in ACTIVE for row in rows):
        await idempotency.renew(call.ctx, name, kept, owed)
        raise Unavailable(
            f"Still being made: send the same request again to go on waiting, or ask for {', '.join(ids)} later.",
            code="still_running",
            retry_after=AGAIN_S,
        )
    if answer.replayed:
        await idempotency.renew(call.ctx, name, owed, kept)  # the first sender may have been seen to leave meanwhile
    done = [row for row in rows if row.status == COMPLETED]
    if not done:
        raise problem_of(rows[0]) if rows else NotFound("It was deleted meanwhile.", code="generation_not_found")
    return done


async def _wait(call: Call, ids: Sequence[str]) -> list[Generation]:
    """Wait until the tail tells of the end. Nobody waits for a sender that has left."""
    return await presence.wait_for(call.request, call.site.tail.wait_for(ids, WAIT_S))


def problem_of(row: Generation) -> Problem:
    """Return why there is no result, as the answer to the one who waited."""
    why = row.failure or Failure("canceled", "It was canceled.")
    said = f"{why.message} (generation {row.id})"
    if why.code == "canceled":
        return Conflict(said, code=why.code)
    if why.code in _OF_THE_INPUT:
        return InvalidInput(said, code=why.code)
    if why.code in _PASSING:
        return Unavailable(said, code=why.code, headers={"x-should-retry": "false"})
    return ProviderFailed(said, code=why.code)
