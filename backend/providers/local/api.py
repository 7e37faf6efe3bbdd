"""Local work behind the seam of the providers: it is queued, leased, killed and stored as everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.core import filing
from backend.core.errors import (
    InvalidMedia,
    MediaUnavailable,
    NotFound,
    NotSent,
    ProviderRefused,
    ProviderUnavailable,
)
from backend.core.generation import LOCAL
from backend.core.ids import new_id
from backend.core.outcomes import Outcome
from backend.media import WORK, WORKS
from backend.providers.base import Handle, Means, Order, Provider, Request
from backend.providers.local import works

if TYPE_CHECKING:
    from backend.http import Fetched


class Local(Provider):
    """What the cage makes of stored files. It is done when the create is answered, and costs nothing."""

    name = LOCAL
    repeatable = True
    is_internal = True
    at_once = WORKS

    def __init__(self, means: Means) -> None:
        self._means = means

    def prepare(self, order: Order) -> Request:
        """The work as JSON. Raises InvalidInput."""
        works.check(order.model, order.inputs)
        return Request.of(f"/{order.id}/{order.model}", order.inputs)

    async def create(self, request: Request) -> Outcome:
        """Do it; the outcome names a file in the store. Raises as the seam says, and StorageFull."""
        _, id, work = request.path.split("/")
        target = self._means.spool.new(id)
        try:
            return await self._do(id, work, request.json(), target)
        except InvalidMedia as error:
            raise ProviderRefused(error.message, code="source_failed") from error
        except MediaUnavailable as error:
            raise ProviderUnavailable(error.message) from error
        except NotFound as error:
            raise ProviderRefused("A file it needs is not in the storage.", code="source_failed") from error
        finally:
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def ask(self, handle: Handle) -> Outcome:
        """Nothing of it goes on elsewhere. Raises ProviderRefused."""
        raise ProviderRefused("It is not being worked on.")

    async def fetch(self, url: str, target: Path, *, cap_bytes: int, total_s: float) -> Fetched:
        """Nothing of it lies elsewhere. Raises NotSent."""
        raise NotSent("local work has no addresses")

    async def _do(self, id: str, work: str, asked: Mapping[str, Any], target: Path) -> Outcome:
        async with AsyncExitStack() as lent:
            store = self._means.store
            paths = [await lent.enter_async_context(store.local(name)) for name in asked["files"]]
            await self._make(work, paths, target, {name: asked[name] for name in works.TOLD[work]})
        # Another name each time: of two that did the same work, each throws away what is its own.
        name = filing.inline(id, new_id(self._means.now()))
        await self._means.store.put(target, name)
        return Outcome(id, "succeeded", outputs=(filing.INLINE + name,))

    async def _make(self, work: str, paths: Sequence[Path], target: Path, told: Mapping[str, Any]) -> None:
        cage = self._means.cage
        if work == "stitch":
            await cage.stitch(paths, target)
        elif work == "trim":
            await cage.trim(paths[0], target, **told)
        elif work == "frame":
            await cage.frame(paths[0], target, place=WORK, **told)
        else:
            await cage.poster(paths[0], target, place=WORK)
