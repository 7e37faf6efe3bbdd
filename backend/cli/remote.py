"""A running service as the commands see it: its routes, its refusals in words, its files."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from backend.cli.output import in_words
from backend.errors import BadAnswer, NetworkError, NotSent, ReelhookError, Unanswered

if TYPE_CHECKING:
    from backend.http import Answer, Http

PATIENCE_S = 30  # how long a service that does not answer is asked again
LARGEST_FILE = 20 << 30
EXTENSIONS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp", "video/mp4": ".mp4"}


class Refused(ReelhookError):
    """The service refused the request."""


@dataclass(frozen=True)
class Address:
    """Where the service is and the key it is called with."""

    url: str
    key: str | None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Remote]:
        """A connection to the service, closed at the end."""
        from backend.http import Http

        http = Http()
        try:
            yield Remote(http, self.url.rstrip("/"), self.key)
        finally:
            await http.close()


class Remote:
    """The routes under one address. Every method raises Refused with a sentence for a person."""

    def __init__(self, http: Http, url: str, key: str | None) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def get(self, path: str, **query: object) -> Any:
        """The JSON at a path; query values that are None are left out."""
        given = urlencode({name: value for name, value in query.items() if value is not None})
        return await self._ask("GET", f"{path}?{given}" if given else path)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Post JSON. It carries an idempotency key, so asking again after a lost answer is safe."""
        key = {"Idempotency-Key": uuid.uuid4().hex}
        return await self._ask("POST", path, json=body if body is not None else {}, headers=key)

    async def upload(self, file: Path) -> Any:
        """Upload a file as an asset; the new asset."""
        with file.open("rb") as content:
            part = {"file": (file.name, content, "application/octet-stream")}
            return self._read(await self._send("POST", "/api/v2/assets", files=part, total_s=600.0))

    async def download(self, generation: dict[str, Any], folder: Path) -> Path:
        """Store the finished file in the folder, checked against its SHA-256."""
        target: Path = folder / (generation["id"] + EXTENSIONS.get(generation["content_type"], ""))
        rough = target.with_name(target.name + ".part")
        # Not `url`: that is where clients reach the service, which may be another address than ours.
        url = f"{self._url}/api/v2/{generation['kind']}s/{generation['id']}/data"
        try:
            fetched = await self._http.fetch(
                url,
                rough,
                cap_bytes=LARGEST_FILE,
                total_s=3600,
                trusted=self._is_own,
                headers=self._headers,
                hops=2,
            )
        except NetworkError as error:
            raise Refused(f"the file of {generation['id']} could not be fetched: {error.message}") from error
        if fetched.sha256 != generation["sha256"]:
            rough.unlink()
            raise Refused(f"the file of {generation['id']} did not arrive as it was stored: try again")
        rough.replace(target)
        return target

    def _is_own(self, scheme: str, host: str, port: int) -> bool:
        return (scheme, host, port) == _origin(self._url)

    async def _ask(self, method: str, path: str, **parts: Any) -> Any:
        """Ask until there is an answer, for at most PATIENCE_S."""
        waited_s, pause_s = 0.0, 0.5
        while True:
            try:
                answer = await self._send(method, path, **parts)
                if answer.status not in (409, 429, 503) or "retry-after" not in answer.headers:
                    return self._read(answer)
                pause_s = _seconds(answer.headers["retry-after"], pause_s)
                refusal = Refused(in_words(answer.json()))
            except Refused as error:
                if not isinstance(error.__cause__, Unanswered):
                    raise
                refusal = error
            if waited_s + pause_s > PATIENCE_S:
                raise refusal
            await asyncio.sleep(pause_s)
            waited_s, pause_s = waited_s + pause_s, min(pause_s * 2, 5)

    async def _send(self, method: str, path: str, headers: dict[str, str] | None = None, **parts: Any) -> Answer:
        try:
            return await self._http.call(method, self._url + path, headers=self._headers | (headers or {}), **parts)
        except NotSent as error:
            raise Refused(
                f"no service answers at {self._url}: start one with `reelhook serve`, or set REELHOOK_URL"
            ) from error
        except NetworkError as error:
            raise Refused(f"the service at {self._url} gave no complete answer") from error

    def _read(self, answer: Answer) -> Any:
        if answer.status == 204:
            return None
        try:
            document = answer.json()
        except BadAnswer as error:
            raise Refused(f"{self._url} answered {answer.status} without JSON: is it Reelhook?") from error
        if answer.status >= 400:
            hint = " (REELHOOK_API_KEY is not set)" if answer.status == 401 and not self._headers else ""
            raise Refused(in_words(document if isinstance(document, dict) else {}) + hint)
        return document


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _seconds(text: str, otherwise_s: float) -> float:
    return float(text) if text.isdigit() else otherwise_s
