"""A provider that is asked over HTTP: its address, its credentials, and where its files may come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from backend.config import is_loopback
from backend.core.catalog import ProviderFacts
from backend.core.errors import AnswerTooLarge, BadAnswer, NotSent, ProviderUnavailable, ProviderUnclear, Unanswered
from backend.core.outcomes import Outcome
from backend.providers.base import Handle, Means, Provider, Request

if TYPE_CHECKING:
    from backend.http import Fetched, HttpAnswer

CREATE_S = 60  # `steps/adopt.py` searches the list for what was made within this time
LOOK_S = 30
PORTS = {"http": 80, "https": 443}
HOPS = 2  # delivery hosts redirect to a store, seldom twice


class HttpProvider(Provider):
    """What is the same for every provider over HTTP. One that is new says how its requests and answers look."""

    def __init__(self, means: Means, facts: ProviderFacts, *, base_url: str, headers: Mapping[str, str]) -> None:
        """`headers` are its credentials: they go to `base_url`'s origin alone."""
        self.base_url = base_url
        self.now, self.facts = means.now, facts
        self._http, self._credentials = means.http, dict(headers)

    @abstractmethod
    def created(self, answer: HttpAnswer) -> Outcome:
        """What the answer to a create says. Raises as `create`, and BadAnswer for what cannot be read."""

    @abstractmethod
    def told(self, answer: HttpAnswer) -> Outcome:
        """What the answer to a look says. Raises as `ask`, and BadAnswer for what cannot be read."""

    @abstractmethod
    def path_of(self, handle: Handle) -> str:
        """Where one prediction is asked for, after the base URL. Raises BadAnswer for an id that is none."""

    async def create(self, request: Request) -> Outcome:
        """POST the request, once."""
        headers = {"content-type": "application/json", **dict(request.headers)}
        with creating():
            return self.created(
                await self.call("POST", request.path, headers=headers, content=request.body.encode(), total_s=CREATE_S)
            )

    async def ask(self, handle: Handle) -> Outcome:
        """GET the prediction."""
        return await self.look("GET", handle)

    async def look(self, method: str, handle: Handle, below: str = "") -> Outcome:
        """Ask about one prediction, at its path or at what is `below` it: it may be asked again. Raises as `ask`."""
        with looking():
            return self.told(await self.call(method, self.path_of(handle) + below))

    async def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, total_s: float = LOOK_S, **body: Any
    ) -> HttpAnswer:
        """One request to the API with our credentials; `body` and errors are those of `Http.call`."""
        sent = {"accept": "application/json", **self._credentials, **(headers or {})}
        return await self._http.call(method, self.base_url + path, headers=sent, total_s=total_s, **body)

    async def fetch(self, url: str, target: Path, *, cap_bytes: int, total_s: float) -> Fetched:
        """GET it from a host of this provider; with our credentials only where the API itself is."""
        return await self._http.fetch(
            url,
            target,
            cap_bytes=cap_bytes,
            total_s=total_s,
            hosts=self.may_serve,
            trusted=self.is_own,
            headers=self.credentials(url),
            hops=HOPS,
            strict=False,
        )

    def credentials(self, url: str) -> Mapping[str, str] | None:
        """The headers that an output at this URL is asked for with; our key goes nowhere but to the API's origin."""
        parts = urlsplit(url)
        own = self.is_own(parts.scheme, parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0))
        return self._credentials if self.outputs_need_key and own else None

    def may_serve(self, host: str, port: int, scheme: str) -> bool:
        """Whether outputs may come from there: the delivery hosts over https, or the API's own address."""
        if self.is_own(scheme, host, port):
            return True
        names = [pattern.removeprefix("*.") for pattern in self.facts.output_hosts]
        return scheme == "https" and port == 443 and any(host == n or host.endswith("." + n) for n in names)

    def is_own(self, scheme: str, host: str, port: int) -> bool:
        """Whether this is the origin the operator gave as the API: reached even on a private network."""
        own = urlsplit(self.base_url)
        own_port = own.port or PORTS.get(own.scheme, 0)
        same_host = host == own.hostname or (is_loopback(host) and is_loopback(self.base_url))
        return scheme == own.scheme and port == own_port and same_host

    @property
    def is_near(self) -> bool:
        """Whether the API is on this machine, as the emulator is."""
        return is_loopback(self.base_url)


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
