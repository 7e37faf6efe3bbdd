"""The adapter of the toy provider, as docs/adding-a-provider.md tells to write one: the least that is needed."""

from __future__ import annotations

from typing import Any, Literal

from toy_emulator import KEY

from backend.core.catalog import ProviderFacts
from backend.core.errors import BadAnswer
from backend.core.generation import Failure
from backend.core.outcomes import Outcome
from backend.http import HttpAnswer
from backend.providers import outputs, reading, refusals
from backend.providers.base import Handle, Means, Order, Request
from backend.providers.over_http import HttpProvider

OF_THE_ACCOUNT = (401, 402, 403)
STATES: dict[str, Literal["running", "succeeded", "failed"]] = {"done": "succeeded", "error": "failed"}
CODES = ("moderated", "invalid_input", "timed_out")
NO_FILE = Failure("output_invalid", "The provider finished, but sent no file.", retryable=True)


class Toy(HttpProvider):
    """One account at Toy: a queue that is asked by id, with no webhook, no list and no cancel."""

    name = "toy"
    outputs_need_key = True

    def __init__(self, means: Means, facts: ProviderFacts, *, base_url: str, key: str) -> None:
        super().__init__(means, facts, base_url=base_url, headers={"authorization": f"Bearer {key}"})

    def prepare(self, order: Order) -> Request:
        """The job that this order asks for."""
        return Request.of("/jobs", {"model": order.model, "input": order.inputs})

    def created(self, answer: HttpAnswer) -> Outcome:
        """What was made of a create; raises what it means for money."""
        if answer.status != 201:
            raise refusals.of_create(answer.status, self._problem(answer))
        return _outcome(answer.json())

    def path_of(self, handle: Handle) -> str:
        """Where a job is asked for."""
        return f"/jobs/{reading.in_path(handle.id)}"

    def told(self, answer: HttpAnswer) -> Outcome:
        """What became of a job."""
        if answer.status != 200:
            raise refusals.of_look(answer.status, self._problem(answer))
        return _outcome(answer.json())

    def _problem(self, answer: HttpAnswer) -> refusals.Problem:
        """What a refusal says, as far as it can be understood."""
        try:
            said = reading.member(answer.json(), "error")
        except BadAnswer:
            said = None
        text = reading.text(reading.member(said, "text"))
        code = reading.text(reading.member(said, "code"))
        return refusals.Problem(
            text=reading.sentence(text or f"The provider answered {answer.status}."),
            is_own=text is not None and code is not None,
            is_of_everybody=answer.status in OF_THE_ACCOUNT,
            code="moderated" if code == "moderated" else "invalid_input",
            wait_s=refusals.wait_s(answer, self.now()),
        )


def _outcome(job: Any) -> Outcome:
    """A job as it is told; raises BadAnswer when it names none."""
    found = reading.id_of(reading.member(job, "job"))
    state = STATES.get(reading.text(reading.member(job, "state")) or "", "running")
    if state == "failed":
        said = reading.text(reading.member(job, "error", "code"))
        code = said if said in CODES else "provider_failed"
        text = reading.text(reading.member(job, "error", "text"))
        message = reading.sentence(text or "") or "The provider's run failed."
        return Outcome(found, state, failure=Failure(code, message, retryable=code == "provider_failed"))
    if state == "succeeded":
        files = tuple(outputs.find(reading.member(job, "files")))
        return Outcome(found, state, outputs=files, failure=None if files else NO_FILE)
    return Outcome(found, state)


def build(means: Means, facts: ProviderFacts, origin: str) -> Toy:
    """The toy's account, at this origin."""
    return Toy(means, facts, base_url=origin, key=KEY)
