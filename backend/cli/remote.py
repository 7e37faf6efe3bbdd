"""A running service as the commands see it: the Python client, with its errors in words for a terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.cli.output import plain
from backend.core.errors import ReelhookError

if TYPE_CHECKING:
    from reelhook import AsyncClient


class Refused(ReelhookError):
    """The service refused the request."""


@dataclass(frozen=True)
class Address:
    """Where the service is and the key it is called with."""

    url: str
    key: str | None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncClient]:
        """Yield a client of the service. What the service refuses is raised as Refused."""
        import reelhook

        try:
            async with reelhook.AsyncClient(self.url, self.key or "", fail_fast=True) as client:
                yield client
        except reelhook.Unauthorized as error:
            raise Refused(plain(error) + ("" if self.key else " (REELHOOK_API_KEY is not set)")) from error
        except reelhook.Unanswered as error:
            raise Refused(plain(error)) from error
        except reelhook.Unreachable as error:
            advice = "start one with `reelhook serve`, or set REELHOOK_URL"
            raise Refused(f"no service answers at {self.url.rstrip('/')}: {advice}") from error
        except reelhook.ReelhookError as error:
            raise Refused(plain(error)) from error
